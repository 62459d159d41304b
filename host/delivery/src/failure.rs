//! What kind of failure an error of the HTTP library is.
//!
//! Its own texts are not used: they quote the URL, whose query may hold a token.

use std::error::Error as StdError;
use std::io;

use wasmhook_core::attempt::ErrorClass;

use crate::resolver::LookupError;

/// The class of a failed exchange. The deadline is not seen here: it is the client's own.
pub(crate) fn classify(error: &reqwest::Error) -> ErrorClass {
    let causes = || std::iter::successors(Some(error as &(dyn StdError + 'static)), |e| cause(*e));
    if let Some(lookup) = causes().find_map(|e| e.downcast_ref::<LookupError>()) {
        return match lookup {
            LookupError::NoAnswer => ErrorClass::Dns,
            LookupError::AllRefused => ErrorClass::AddressRefused,
        };
    }
    if error.is_dns() {
        return ErrorClass::Dns;
    }
    if causes().any(<dyn StdError>::is::<rustls::Error>) {
        return ErrorClass::Tls;
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
        return if broken {
            ErrorClass::Tls
        } else {
            ErrorClass::Connect
        };
    }
    ErrorClass::Protocol
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

/// The class in a sentence.
pub(crate) fn words(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Timeout => "the exchange did not end within its deadline",
        ErrorClass::Dns => "the receiver's host name did not resolve",
        ErrorClass::Connect => "no connection to the receiver could be made",
        ErrorClass::Tls => "the TLS handshake with the receiver failed",
        ErrorClass::AddressRefused => "the receiver's address is not one that deliveries may go to",
        _ => "the connection broke, or the receiver did not answer in HTTP",
    }
}
