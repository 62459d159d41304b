//! What a plugin may use besides what every plugin has: asked for in its manifest, allowed by the
//! operator. What is not granted does not exist for the component.

use serde::Deserialize;

use crate::error::LoadError;

/// In a manifest what a plugin asks for, in the host's settings what the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// `wasmhook:plugin/key-value`: the tenant's own key-value store.
    pub key_value: bool,
}

impl Grants {
    /// Refuse a manifest that asks for more than the operator allows; `file` names it.
    pub(crate) fn check(&self, allowed: &Self, file: &str) -> Result<(), LoadError> {
        if self.key_value && !allowed.key_value {
            return Err(LoadError::GrantNotAllowed {
                file: file.to_owned(),
                grant: "key_value".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether an interface of the contract is for who was granted it, and if so, by which key and
    /// whether it was.
    pub(crate) fn of(&self, interface: &str) -> Option<(&'static str, bool)> {
        match interface {
            "key-value" => Some(("key_value = true", self.key_value)),
            _ => None,
        }
    }
}
