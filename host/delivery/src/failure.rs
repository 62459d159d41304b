//! What kind of failure an error of the HTTP library is.
//!
//! Its own texts are not used: they quote the URL, whose query may hold a token.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;
use wasmhook_core::attempt::ErrorClass;

use crate::resolver::LookupError;

/// How an exchange failed, with what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: ErrorClass,
    pub(crate) words: &'static str,
}

impl From<ErrorClass> for Failure {
    fn from(class: ErrorClass) -> Self {
        let words = words(class);
        Self { class, words }
    }
}

/// What a failed exchange is. The deadline is not seen here: it is the client's own.
pub(crate) fn classify(error: &reqwest::Error) -> Failure {
    let causes = || std::iter::successors(Some(error as &(dyn StdError + 'static)), |e| cause(*e));
    if let Some(lookup) = causes().find_map(|e| e.downcast_ref::<LookupError>()) {
        let class = match lookup {
            LookupError::NoAnswer => ErrorClass::Dns,
            LookupError::AllRefused => ErrorClass::AddressRefused,
        };
        return class.into();
    }
    if error.is_dns() {
        return ErrorClass::Dns.into();
    }
    if let Some(tls) = causes().find_map(|e| e.downcast_ref::<rustls::Error>()) {
        return Failure {
            class: ErrorClass::Tls,
            words: tls_words(tls),
        };
    }
    if error.is_connect() {
        // TCP does not end a connection that was never made, so these come from the handshake.
        let broken = causes()
            .filter_map(|e| e.downcast_ref::<io::Error>())
            .any(|e| {
                matches!(
                    e.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                )
            });
        let class = if broken {
            ErrorClass::Tls
        } else {
            ErrorClass::Connect
        };
        return class.into();
    }
    ErrorClass::Protocol.into()
}

/// The next error down. `io::Error` answers with the source of what it wraps, which would skip the
/// wrapped error itself.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// What is wrong with the receiver's certificate, if it is that: whoever runs the receiver is to hear of it.
fn tls_words(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return words(ErrorClass::Tls);
    };
    match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the receiver's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the receiver's certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the receiver's certificate is for another host name"
        }
        CertificateError::UnknownIssuer => {
            "the receiver's certificate leads to no issuer that this machine trusts"
        }
        CertificateError::Revoked => "the receiver's certificate was revoked",
        _ => "the receiver's certificate is not valid",
    }
}

/// The class in a sentence.
fn words(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Timeout => "the exchange did not end within its deadline",
        ErrorClass::Dns => "the receiver's host name did not resolve",
        ErrorClass::Connect => "no connection to the receiver could be made",
        ErrorClass::Tls => "the TLS handshake with the receiver failed",
        ErrorClass::AddressRefused => "the receiver's address is not one that deliveries may go to",
        _ => "the connection broke, or the receiver did not answer in HTTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        let told = |error: CertificateError| tls_words(&error.into());
        let expired = "the receiver's certificate has expired";
        assert_eq!(told(CertificateError::Expired), expired);
        let name = "the receiver's certificate is for another host name";
        assert_eq!(told(CertificateError::NotValidForName), name);
        assert!(told(CertificateError::UnknownIssuer).ends_with("trusts"));
        let other = "the receiver's certificate is not valid";
        assert_eq!(told(CertificateError::BadEncoding), other);
        let handshake = "the TLS handshake with the receiver failed";
        assert_eq!(tls_words(&rustls::Error::HandshakeNotComplete), handshake);
    }
}
