//! What a plugin that composes a signature can do with an endpoint's secrets: use them by name.

use std::sync::Arc;

use ed25519_dalek::Signer as _;
use hmac::{EagerHash, Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::endpoint::Endpoint;
use crate::ids::SecretName;
use crate::secret::SigningSecret;

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1, which is no longer safe as a hash and still is within an HMAC.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What of a secret is the key of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// Its text as given.
    Text,
    /// The bytes that stand in base64 behind `whsec_`.
    Decoded,
}

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The endpoint names no such secret.
    #[error("the endpoint names no such secret")]
    Unknown,
    /// The secret is of another kind.
    #[error("the secret is of another kind")]
    WrongKind,
}

/// The secrets that one endpoint names, in its order. Nothing gives them out.
#[derive(Debug, Clone)]
pub struct Keyring(Vec<(SecretName, Arc<SigningSecret>)>);

impl Keyring {
    /// The endpoint's names with the secrets that were found for them, in the same order.
    pub fn new(endpoint: &Endpoint, secrets: &[Arc<SigningSecret>]) -> Self {
        let named = endpoint.secrets.iter().cloned();
        Self(named.zip(secrets.iter().cloned()).collect())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.0.iter().map(|(name, _)| name)
    }

    fn key(&self, name: &str) -> Result<&SigningSecret, KeyError> {
        let found = self.0.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, secret)| &**secret).ok_or(KeyError::Unknown)
    }

    /// The HMAC of the data by a secret.
    pub fn hmac(
        &self,
        name: &str,
        form: KeyForm,
        hash: Hash,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyError> {
        let secret = self.key(name)?;
        let key = match form {
            KeyForm::Text => secret.text(),
            KeyForm::Decoded => secret.symmetric(),
        }
        .ok_or(KeyError::WrongKind)?;
        Ok(match hash {
            Hash::Sha1 => mac::<Sha1>(key, data),
            Hash::Sha256 => mac::<Sha256>(key, data),
            Hash::Sha512 => mac::<Sha512>(key, data),
        })
    }

    /// The ed25519 signature of the data by a secret.
    pub fn ed25519(&self, name: &str, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.key(name)?.asymmetric().ok_or(KeyError::WrongKind)?;
        Ok(key.sign(data).to_bytes().to_vec())
    }
}

fn mac<H: EagerHash>(key: &[u8], data: &[u8]) -> Vec<u8>
where
    Hmac<H>: KeyInit + Mac,
{
    let mut mac =
        <Hmac<H> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn keyring(secrets: &[(&str, &str)]) -> Keyring {
        let parse = |(name, text): &(&str, &str)| {
            let secret = Arc::new(SigningSecret::parse(text).unwrap());
            (SecretName::new(name).unwrap(), secret)
        };
        Keyring(secrets.iter().map(parse).collect())
    }

    const KEY: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn the_published_hmac_vectors_come_out() {
        // RFC 2202 and RFC 4231, test case 2.
        let keys = keyring(&[("a", "Jefe")]);
        for (hash, expected) in [
            (Hash::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                Hash::Sha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Hash::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            let mac = keys.hmac("a", KeyForm::Text, hash, b"what do ya want for nothing?");
            assert_eq!(hex::encode(mac.unwrap()), expected, "{hash:?}");
        }
    }

    #[test]
    fn a_secret_is_used_in_the_form_that_is_asked_for() {
        // The first vector of Standard Webhooks.
        let keys = keyring(&[("a", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        let signed = br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
        let decoded = keys
            .hmac("a", KeyForm::Decoded, Hash::Sha256, signed)
            .unwrap();
        assert_eq!(
            STANDARD.encode(&decoded),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_ne!(
            keys.hmac("a", KeyForm::Text, Hash::Sha256, signed).unwrap(),
            decoded
        );
    }

    #[test]
    fn a_signature_verifies_by_the_public_key() {
        let keys = keyring(&[("a", KEY)]);
        let signature = keys.ed25519("a", b"data").unwrap();
        let secret = SigningSecret::parse(KEY).unwrap();
        let key = secret.asymmetric().unwrap().verifying_key();
        let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
        key.verify_strict(b"data", &signature).unwrap();
    }

    #[test]
    fn only_named_secrets_of_the_right_kind_sign() {
        let keys = keyring(&[("text", "plain"), ("pair", KEY)]);
        let hmac = |name, form| keys.hmac(name, form, Hash::Sha256, b"");
        assert_eq!(hmac("other", KeyForm::Text), Err(KeyError::Unknown));
        assert_eq!(hmac("text", KeyForm::Decoded), Err(KeyError::WrongKind));
        assert_eq!(hmac("pair", KeyForm::Text), Err(KeyError::WrongKind));
        assert_eq!(keys.ed25519("text", b""), Err(KeyError::WrongKind));
        assert!(!format!("{keys:?}").contains("plain"));
    }
}
