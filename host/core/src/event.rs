//! Events and their types.

mod draft;

pub use self::draft::{EventDraft, MAX_DELAY};

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::ids::{EventId, OrderingKey, TenantId};

/// A dotted name in the catalog, such as `invoice.paid`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(Arc<str>);

impl EventType {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 128;
    /// What is expected of a text to be one.
    pub const EXPECTED: &'static str = "expected 1 to 128 characters of a-z A-Z 0-9 . _ -";

    /// Trims and checks a type name: 1 to 128 characters of `a-z A-Z 0-9 . _ -`. The wildcard `*`
    /// is not a type.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref().trim();
        let valid = !text.is_empty()
            && text.len() <= Self::MAX_LEN
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if valid {
            Ok(Self(Arc::from(text)))
        } else {
            Err(Error::event_field("type", Self::EXPECTED))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for EventType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EventType {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.0.as_ref().to_owned()
    }
}

/// The JSON of an event, byte for byte as the producer pushed it. Its debug print shows the length
/// only, because payloads are private to the tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Checks that the bytes are one JSON value in UTF-8; keeps them untouched.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let refused = |expected| Err(Error::event_field("payload", expected));
        if bytes.is_empty() {
            return refused("expected JSON, found nothing");
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return refused("expected JSON in UTF-8");
        };
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Self(bytes)),
            Err(error) => Err(Error::event_field(
                "payload",
                // Position only: the parser's own message can quote what it found.
                &format!(
                    "expected valid JSON, which ends at line {} column {}",
                    error.line(),
                    error.column()
                ),
            )),
        }
    }

    /// Takes bytes that were checked before, as a store does with what it kept.
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes as pushed.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true for a checked payload.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

// As a text that holds the JSON, for JSON within JSON would lose the white space around it, and a
// payload's bytes are kept as they are.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text.into_bytes()).map_err(serde::de::Error::custom)
    }
}

/// An immutable fact that a producer pushed, normalised and well formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The producer's id, unique within the tenant.
    pub id: EventId,
    /// Whose event it is.
    pub tenant_id: TenantId,
    /// The event's type; whether it is allowed is the catalog's to say.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Any JSON value.
    pub payload: Payload,
    /// When it happened, in UTC; when it was accepted if the producer did not say.
    pub occurred_at: Timestamp,
    /// When its deliveries become due, in whole milliseconds; `None`, as for most events, is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// Endpoints that ask for order by key get events of one key in the order of their coming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<OrderingKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_payloads_are_refused_without_being_quoted() {
        for bad in [&b"{\"secret\": hunter2}"[..], b"{} {}", b"\"\xff\"", b"   "] {
            let error = Payload::new(Bytes::copy_from_slice(bad))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("invalid webhook event: field `payload`"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_wildcard_and_odd_characters_are_not_types() {
        for bad in ["*", "", "a b", "a/b", "é", &"x".repeat(129)] {
            assert!(EventType::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_payload_keeps_every_byte(text in "[ \n]{0,3}(\"[a-z]{0,8}\"|[1-9][0-9]{0,30}|\\[1, 2\\.50\\])[ \n]{0,3}") {
            let payload = Payload::new(text.clone().into_bytes()).unwrap();
            proptest::prop_assert_eq!(payload.bytes().as_ref(), text.as_bytes());
        }
    }
}
