//! Headers that a tenant or a plugin may add to a request.

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::endpoint::SignatureProfile;
use crate::error::{Context, Error, Result};

/// Names that are never the tenant's to set: credentials, the connection's own, what the host
/// writes, and the signatures of the contract. Every `webhook-*` name is reserved besides.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-hook-signature",
    "x-signature",
    "x-webhook-event-id",
    "x-webhook-signature",
    "x-webhook-timestamp",
];

/// The most headers that one endpoint or plugin may add.
pub const MAX_HEADERS: usize = 64;
/// The longest header value, in bytes.
pub const MAX_VALUE: usize = 8 * 1024;

/// Static headers that were checked: known not to be reserved, nor able to split the request.
/// Names are canonical (lower case), values trimmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct SafeHeaders(Vec<(HeaderName, HeaderValue)>);

impl SafeHeaders {
    /// Checks names and values. Errors name the header, never its value.
    pub fn new<I, N, V>(headers: I) -> Result<Self>
    where
        I: IntoIterator<Item = (N, V)>,
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut safe: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in headers {
            let (name, value) = checked(name.as_ref(), value.as_ref(), is_reserved)?;
            if safe.len() == MAX_HEADERS {
                return Err(Error::UnsafeHeader(Context::words(format!(
                    "expected at most {MAX_HEADERS} headers"
                ))));
            }
            safe.retain(|(known, _)| *known != name);
            safe.push((name, value));
        }
        Ok(Self(safe))
    }

    /// Refuses headers that the endpoint's signature profile writes itself.
    pub fn check_profile(&self, profile: &SignatureProfile) -> Result<()> {
        match self.0.iter().find(|(name, _)| profile.uses(name)) {
            Some((name, _)) => Err(reserved(name.as_str())),
            None => Ok(()),
        }
    }

    /// These headers with `others` laid over them; of two with one name the later wins.
    #[must_use]
    pub fn overlaid(&self, others: &Self) -> Self {
        let mut all: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| !others.0.iter().any(|(o, _)| o == name))
            .cloned()
            .collect();
        all.extend(others.0.iter().cloned());
        Self(all)
    }

    /// The headers in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<(String, String)>> for SafeHeaders {
    type Error = Error;
    fn try_from(headers: Vec<(String, String)>) -> Result<Self> {
        Self::new(headers)
    }
}

impl From<SafeHeaders> for Vec<(String, String)> {
    fn from(headers: SafeHeaders) -> Self {
        headers
            .0
            .into_iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect()
    }
}

/// Headers that sign a request, made by a plugin: checked as [`SafeHeaders`] are, but for the names that
/// carry signatures, ids and times of webhooks, which are theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders(Vec<(HeaderName, HeaderValue)>);

impl SignatureHeaders {
    /// Checks names and values, and that there is one at least: nothing is sent unsigned. Errors name
    /// the header, never its value.
    pub fn new<I, N, V>(headers: I) -> Result<Self>
    where
        I: IntoIterator<Item = (N, V)>,
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut signature = Vec::new();
        for (name, value) in headers {
            let (name, value) = checked(name.as_ref(), value.as_ref(), is_not_a_signatures)?;
            if signature.len() == MAX_HEADERS {
                return Err(Error::UnsafeHeader(Context::words(format!(
                    "expected at most {MAX_HEADERS} headers"
                ))));
            }
            signature.push((name, value));
        }
        if signature.is_empty() {
            return Err(Error::UnsafeHeader(Context::words(
                "expected at least one header that signs the request",
            )));
        }
        Ok(Self(signature))
    }

    /// The headers in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

/// The reserved names that are a signature profile's to write.
const OF_PROFILES: &[&str] = &[
    "x-hook-signature",
    "x-signature",
    "x-webhook-event-id",
    "x-webhook-signature",
    "x-webhook-timestamp",
];

/// Whether the host or the connection sets this header, so that no profile may.
pub(crate) fn is_the_hosts(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("webhook-") || (RESERVED.contains(&name) && !OF_PROFILES.contains(&name))
}

fn reserved(name: &str) -> Error {
    Error::UnsafeHeader(Context::words(format!(
        "header `{name}` is reserved for the host"
    )))
}

fn is_reserved(name: &str) -> bool {
    RESERVED.binary_search(&name).is_ok() || name.starts_with("webhook-")
}

fn is_not_a_signatures(name: &str) -> bool {
    RESERVED.binary_search(&name).is_ok() && !OF_PROFILES.contains(&name)
}

fn checked(
    name: &str,
    value: &str,
    refused: fn(&str) -> bool,
) -> Result<(HeaderName, HeaderValue)> {
    let trimmed = name.trim_matches(' ');
    let Ok(header) = HeaderName::from_bytes(trimmed.as_bytes()) else {
        // The name is not echoed: it may hold anything, line breaks included.
        return Err(Error::UnsafeHeader(Context::words(
            "a header name is not a token of letters, digits and !#$%&'*+-.^_`|~",
        )));
    };
    let text = header.as_str();
    if refused(text) {
        return Err(reserved(text));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::UnsafeHeader(Context::words(format!(
            "the value of header `{text}` holds a control character"
        ))));
    }
    let value = value.trim();
    if value.len() > MAX_VALUE {
        return Err(Error::UnsafeHeader(Context::words(format!(
            "the value of header `{text}` is longer than {MAX_VALUE} bytes"
        ))));
    }
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Error::UnsafeHeader(Context::words(format!(
            "the value of header `{text}` cannot be sent"
        )))
    })?;
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_list_is_sorted_for_its_binary_search() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn names_are_canonical_and_values_trimmed() {
        let headers = SafeHeaders::new([("X-Env", "  test ")]).unwrap();
        let (name, value) = headers.iter().next().unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-env", &b"test"[..]));
    }

    #[test]
    fn reserved_names_are_refused_in_any_case() {
        for name in RESERVED
            .iter()
            .copied()
            .chain(["webhook-id", "Webhook-Anything"])
        {
            for name in [name.to_owned(), name.to_uppercase()] {
                let error = SafeHeaders::new([(name.as_str(), "x")]).unwrap_err();
                assert!(matches!(error, Error::UnsafeHeader(_)), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_signature_has_the_names_of_signatures_and_no_other_reserved_ones() {
        for name in OF_PROFILES
            .iter()
            .chain(&["Webhook-Signature", "Stripe-Signature"])
        {
            SignatureHeaders::new([(*name, "v")]).unwrap();
        }
        for name in RESERVED.iter().filter(|name| !OF_PROFILES.contains(name)) {
            let error = SignatureHeaders::new([(name.to_uppercase(), "v")]).unwrap_err();
            assert!(matches!(error, Error::UnsafeHeader(_)), "{name}: {error}");
        }
        assert!(SignatureHeaders::new([("x-a", "b\r\nHost: evil")]).is_err());
        assert!(SignatureHeaders::new::<_, &str, &str>([]).is_err());
        let many = (0..=MAX_HEADERS).map(|n| (format!("x-{n}"), "v"));
        assert!(SignatureHeaders::new(many).is_err());
    }

    #[test]
    fn control_characters_are_refused_and_not_echoed() {
        for (name, value) in [
            ("x-a\r\nHost", "b"),
            ("x-a", "b\r\nHost: evil"),
            ("x-a", "b\0"),
            ("x-a", "\tb"),
            ("", "b"),
        ] {
            let error = SafeHeaders::new([(name, value)]).unwrap_err();
            assert!(matches!(error, Error::UnsafeHeader(_)), "{error}");
            assert!(!error.to_string().contains("evil"), "{error}");
        }
    }

    #[test]
    fn names_of_a_configured_profile_are_refused() {
        let headers = SafeHeaders::new([("x-acme-sig", "1")]).unwrap();
        let profile = SignatureProfile::Sha256 {
            signature_header: HeaderName::from_static("x-acme-sig"),
            event_id_header: HeaderName::from_static("x-acme-id"),
            timestamp_header: HeaderName::from_static("x-acme-time"),
        };
        assert!(matches!(
            headers.check_profile(&profile),
            Err(Error::UnsafeHeader(_))
        ));
        headers.check_profile(&SignatureProfile::Standard).unwrap();
    }
}
