//! How requests to an endpoint are signed, and what their body is.

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::PluginName;
use crate::{headers, signing};

/// How a delivery is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignatureProfile {
    /// Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    #[default]
    Standard,
    /// The contract's own profile: a JSON envelope as body, and three headers whose names can be
    /// chosen.
    Sha256 {
        /// Carries `sha256=<hex>`; `x-signature` by default.
        signature_header: HeaderName,
        /// Carries the event id; `x-webhook-event-id` by default.
        event_id_header: HeaderName,
        /// Carries the attempt's time in RFC 3339; `x-webhook-timestamp` by default.
        timestamp_header: HeaderName,
    },
    /// A plugin signs: the host sets no signature and no id of its own, and sends nothing that the plugin
    /// did not sign.
    Plugin {
        /// The plugin's name within the tenant.
        signer: PluginName,
    },
}

impl SignatureProfile {
    /// The `sha256` profile with the contract's header names.
    pub fn sha256() -> Self {
        Self::Sha256 {
            signature_header: HeaderName::from_static("x-signature"),
            event_id_header: HeaderName::from_static("x-webhook-event-id"),
            timestamp_header: HeaderName::from_static("x-webhook-timestamp"),
        }
    }

    /// Refuses header names that overwrite each other or what the host sets itself.
    pub fn validate(&self) -> Result<()> {
        let Self::Sha256 {
            signature_header,
            event_id_header,
            timestamp_header,
        } = self
        else {
            return Ok(());
        };
        let names = [signature_header, event_id_header, timestamp_header];
        let twice = (1..names.len()).any(|index| names[..index].contains(&names[index]));
        if twice || names.into_iter().any(headers::is_the_hosts) {
            return Err(Error::endpoint_field(
                "profile",
                "expected three different header names, none of which the host sets itself",
            ));
        }
        Ok(())
    }

    /// Whether this profile writes the header itself.
    pub fn uses(&self, name: &HeaderName) -> bool {
        match self {
            Self::Standard => [
                signing::ID_HEADER,
                signing::TIMESTAMP_HEADER,
                signing::SIGNATURE_HEADER,
            ]
            .contains(&name.as_str()),
            Self::Sha256 {
                signature_header,
                event_id_header,
                timestamp_header,
            } => [signature_header, event_id_header, timestamp_header].contains(&name),
            // Which ones only the plugin knows; they are laid over all others.
            Self::Plugin { .. } => false,
        }
    }
}

/// What the body of a request is that the `standard` profile or a plugin signs. The `sha256` profile has an
/// envelope of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyForm {
    /// The payload as pushed, or as the transform plugin made it.
    #[default]
    Payload,
    /// `{"type","timestamp","data"}`, the recommendation of Standard Webhooks.
    Envelope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_whose_headers_collide_is_refused() {
        let named = |signature: &'static str| SignatureProfile::Sha256 {
            signature_header: HeaderName::from_static(signature),
            event_id_header: HeaderName::from_static("x-id"),
            timestamp_header: HeaderName::from_static("x-time"),
        };
        named("x-sig").validate().unwrap();
        SignatureProfile::sha256().validate().unwrap();
        for bad in ["x-id", "content-type", "host", "webhook-id"] {
            assert!(named(bad).validate().is_err(), "{bad} was accepted");
        }
    }
}
