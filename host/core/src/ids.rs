//! Identifiers. Each is its own type, so that a tenant can never be passed for an endpoint.
//!
//! They are cheap to clone (a shared string) because a delivery carries several of them through
//! every stage.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

fn is_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Whether `text` may be a folder or key segment: letters, digits, `_`, `-` and `.`, not starting
/// with a dot.
fn is_name(text: &str) -> bool {
    !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $kind:ident, $rule:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest accepted id, in bytes.
            pub const MAX_LEN: usize = $max;
            /// What is expected of a text to be one.
            pub const EXPECTED: &'static str = $expected;

            /// Trims white space and checks the rule for this kind of id.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref().trim();
                let rule: fn(&str) -> bool = $rule;
                if text.is_empty() || text.len() > Self::MAX_LEN || !rule(text) {
                    return Err(Error::$kind($field, Self::EXPECTED));
                }
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id!(
    /// The customer on whose behalf events are sent. It names a folder and is part of every key,
    /// so separators and leading dots are refused.
    TenantId, "tenant", 128, event_field, is_name,
    "expected 1 to 128 characters of a-z A-Z 0-9 . _ - not starting with a dot"
);
id!(
    /// The producer's id of an event; pushing it again makes no second delivery.
    EventId, "id", 256, event_field, |text| !is_control(text),
    "expected 1 to 256 bytes without control characters"
);
id!(
    /// What events have in common that are to arrive in order, such as the id of an order.
    OrderingKey, "ordering_key", 256, event_field, |text| !is_control(text),
    "expected 1 to 256 bytes without control characters"
);
id!(
    /// A tenant's receiver.
    EndpointId, "endpoint_id", 128, endpoint_field, |text| !is_control(text),
    "expected 1 to 128 bytes without control characters"
);
id!(
    /// One event going to one endpoint. It becomes the `webhook-id` header, where Standard
    /// Webhooks allows no dot.
    DeliveryId, "delivery_id", 128, delivery_field,
    |text| text.bytes().all(|b| b.is_ascii_graphic() && b != b'.'),
    "expected 1 to 128 visible ASCII characters without a dot"
);
id!(
    /// The name by which a tenant's configuration refers to a secret; never the secret itself.
    SecretName, "secret", 64, endpoint_field,
    |text| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
    "expected the name of a secret, 1 to 64 characters of a-z A-Z 0-9 _ -"
);
id!(
    /// The name of a plugin within its tenant: its file's, without the ending.
    PluginName, "signer", 128, endpoint_field, is_name,
    "expected the name of a plugin, 1 to 128 characters of a-z A-Z 0-9 _ - ."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrounding_white_space_is_trimmed() {
        assert_eq!(TenantId::new("  acme\n").unwrap().as_str(), "acme");
    }

    #[test]
    fn a_tenant_cannot_leave_its_folder() {
        for bad in [
            "",
            " ",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            &"x".repeat(129),
        ] {
            assert!(TenantId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_delivery_id_has_no_dot() {
        assert!(DeliveryId::new("whdel_1.2").is_err());
    }

    #[test]
    fn an_over_long_event_id_names_the_field_and_the_rule() {
        let error = EventId::new("x".repeat(257)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid webhook event: field `id`: expected 1 to 256 bytes without control characters"
        );
    }
}
