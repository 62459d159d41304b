//! `wasmhook:plugin/signing`: keys that a guest names and never sees.

use std::sync::Arc;

use crate::bindings::signing::{self, Error};
use crate::budget::Import;
use crate::state::State;

/// The secrets that the endpoint of one call names, in the endpoint's order.
pub trait Signer: Send + Sync {
    /// Their names.
    fn keys(&self) -> Vec<String>;

    /// The HMAC of the data.
    fn hmac(&self, key: &str, form: KeyForm, hash: Hash, data: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// The ed25519 signature of the data.
    fn ed25519(&self, key: &str, data: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What of a secret is the key of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// Its text.
    Text,
    /// The bytes behind `whsec_`.
    Decoded,
}

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// There is no such key.
    Unknown,
    /// It is of another kind.
    WrongKind,
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unknown => Self::UnknownKey,
            KeyError::WrongKind => Self::WrongKind,
        }
    }
}

impl State {
    fn signer(&mut self) -> wasmtime::Result<Option<Arc<dyn Signer>>> {
        self.budget.admit(Import::Signing)?;
        Ok(self.signer.clone())
    }
}

impl signing::Host for State {
    fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.signer()?.map_or_else(Vec::new, |signer| signer.keys()))
    }

    fn hmac(
        &mut self,
        key: String,
        form: signing::KeyForm,
        hash: signing::Hash,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let Some(signer) = self.signer()? else {
            return Ok(Err(Error::UnknownKey));
        };
        let form = match form {
            signing::KeyForm::Text => KeyForm::Text,
            signing::KeyForm::Decoded => KeyForm::Decoded,
        };
        let hash = match hash {
            signing::Hash::Sha1 => Hash::Sha1,
            signing::Hash::Sha256 => Hash::Sha256,
            signing::Hash::Sha512 => Hash::Sha512,
        };
        Ok(signer.hmac(&key, form, hash, &data).map_err(Error::from))
    }

    fn ed25519_sign(
        &mut self,
        key: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let Some(signer) = self.signer()? else {
            return Ok(Err(Error::UnknownKey));
        };
        Ok(signer.ed25519(&key, &data).map_err(Error::from))
    }
}
