//! Signing secrets.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::error::{Context, Error, Result};

/// A tenant's signing secret. It can be neither printed nor serialised, and its bytes are wiped
/// when it is dropped.
pub struct SigningSecret(Key);

enum Key {
    /// `whsec_…`: the decoded key of Standard Webhooks `v1`, and the text for the `sha256` profile.
    Symmetric {
        text: Zeroizing<Vec<u8>>,
        key: Zeroizing<Vec<u8>>,
    },
    /// `whsk_…`: an ed25519 key of Standard Webhooks `v1a`. The type wipes itself.
    Asymmetric(Box<SigningKey>),
    /// Any other text: usable with the `sha256` profile only.
    Text(Zeroizing<Vec<u8>>),
}

/// The length of a `whsec_` key once decoded, in bytes (Standard Webhooks 1.0).
const SYMMETRIC_LEN: std::ops::RangeInclusive<usize> = 24..=64;

impl SigningSecret {
    /// Reads a secret: `whsec_` + base64 of 24 to 64 bytes, `whsk_` + base64 of an ed25519 key
    /// (32-byte seed, or seed and public key), or any other non-empty text for the `sha256`
    /// profile. Surrounding white space, such as a file's last line break, is ignored, and so is the byte order mark
    /// that some editors put before the first line of a file.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        let refused = |expected: &str| Err(Error::endpoint_field("secret", expected));
        if text.is_empty() {
            return refused("expected a signing secret, found nothing");
        }
        if let Some(encoded) = text.strip_prefix("whsec_") {
            let key = STANDARD.decode(encoded).map(Zeroizing::new);
            return match key {
                Ok(key) if SYMMETRIC_LEN.contains(&key.len()) => Ok(Self(Key::Symmetric {
                    text: Zeroizing::new(text.as_bytes().to_vec()),
                    key,
                })),
                _ => refused("expected whsec_ and the standard base64 of 24 to 64 bytes"),
            };
        }
        if let Some(encoded) = text.strip_prefix("whsk_") {
            let bytes = STANDARD
                .decode(encoded)
                .map(Zeroizing::new)
                .unwrap_or_default();
            let key = match bytes.len() {
                32 => bytes
                    .as_slice()
                    .try_into()
                    .ok()
                    .map(|seed| SigningKey::from_bytes(&seed)),
                64 => bytes
                    .as_slice()
                    .try_into()
                    .ok()
                    .and_then(|pair| SigningKey::from_keypair_bytes(&pair).ok()),
                _ => None,
            };
            return match key {
                Some(key) => Ok(Self(Key::Asymmetric(Box::new(key)))),
                None => refused("expected whsk_ and the standard base64 of an ed25519 key"),
            };
        }
        Ok(Self(Key::Text(Zeroizing::new(text.as_bytes().to_vec()))))
    }

    /// The key of the `v1` scheme, if this is one.
    pub(crate) fn symmetric(&self) -> Option<&[u8]> {
        match &self.0 {
            Key::Symmetric { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The key of the `v1a` scheme, if this is one.
    pub(crate) fn asymmetric(&self) -> Option<&SigningKey> {
        match &self.0 {
            Key::Asymmetric(key) => Some(key),
            _ => None,
        }
    }

    /// The bytes that the `sha256` profile keys its HMAC with: the text as given.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match &self.0 {
            Key::Symmetric { text, .. } | Key::Text(text) => Some(text),
            Key::Asymmetric(_) => None,
        }
    }

    /// The public half of an ed25519 secret, `whpk_…`, for the receiver. `None` for other kinds.
    pub fn public_key(&self) -> Option<String> {
        self.asymmetric()
            .map(|key| format!("whpk_{}", STANDARD.encode(key.verifying_key().as_bytes())))
    }

    /// Refuses a secret that the Standard Webhooks profile cannot sign with.
    pub fn check_standard(&self) -> Result<()> {
        if matches!(self.0, Key::Text(_)) {
            return Err(Error::InvalidEndpoint(Context::field(
                "secret",
                "expected a whsec_ or whsk_ secret for the standard signature profile",
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_nothing_of_the_secret() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{secret:?}"), "SigningSecret([redacted])");
    }

    #[test]
    fn malformed_secrets_are_refused_without_being_quoted() {
        for bad in [
            "",
            "  ",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_!hunter2",
            "whsk_aHVudGVyMg==",
        ] {
            let error = SigningSecret::parse(bad).unwrap_err().to_string();
            assert!(
                error.starts_with("invalid webhook endpoint: field `secret`"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_plain_text_serves_the_sha256_profile_only() {
        let secret = SigningSecret::parse("plain\n").unwrap();
        assert_eq!(secret.text(), Some(&b"plain"[..]));
        assert!(secret.check_standard().is_err());
    }

    #[test]
    fn a_byte_order_mark_and_line_ends_are_no_part_of_a_secret() {
        let secret = SigningSecret::parse("\u{feff}plain\r\n").unwrap();
        assert_eq!(secret.text(), Some(&b"plain"[..]));
    }

    #[test]
    fn the_public_key_of_an_ed25519_secret_can_be_shown() {
        let secret = SigningSecret::parse(
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        )
        .unwrap();
        assert!(secret.public_key().unwrap().starts_with("whpk_"));
    }
}
