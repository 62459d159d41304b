//! What names compiled code: the component that it was made from, and for whom if it is not for everyone.

use sha2::{Digest as _, Sha256};

use crate::folder::Key;
use crate::types::Digest;

/// A plugin of a tenant, whatever version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner([u8; 16]);

impl Owner {
    pub(crate) fn of(key: &Key) -> Self {
        // Neither name has a slash in it.
        let digest = Sha256::digest(format!("{}/{}", key.tenant, key.name));
        let mut owner = [0; 16];
        owner.copy_from_slice(&digest[..16]);
        Self(owner)
    }
}

/// For a file's name.
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CodeId {
    /// Of the component.
    pub(crate) digest: Digest,
    /// The plugin that it serves alone, having been made with what was kept of that plugin's functions. With
    /// none it was made from the component and nothing else, and serves whoever has the same component.
    pub(crate) owner: Option<Owner>,
}

impl CodeId {
    /// Code for everyone.
    pub(crate) fn shared(digest: Digest) -> Self {
        Self {
            digest,
            owner: None,
        }
    }

    /// What can serve a plugin of this owner.
    pub(crate) fn all(digest: Digest, owner: Option<Owner>) -> impl Iterator<Item = Self> {
        let own = owner.map(|owner| Self {
            digest,
            owner: Some(owner),
        });
        [Self::shared(digest)].into_iter().chain(own)
    }
}
