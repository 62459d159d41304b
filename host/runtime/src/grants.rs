//! What a plugin may use besides what every plugin has: asked for in its manifest, allowed by the
//! operator. What is not granted does not exist for the component.

use serde::Deserialize;

use crate::error::LoadError;
use crate::host_pattern::HostPattern;

/// In a manifest what a plugin asks for, in the host's settings what the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// `wasmhook:plugin/key-value`: the tenant's own key-value store.
    pub key_value: bool,
    /// `wasmhook:plugin/http-client`: the hosts that requests may go to.
    pub http: Vec<HostPattern>,
}

impl Grants {
    /// Refuse a manifest that asks for more than the operator allows; `file` names it.
    pub(crate) fn check(&self, allowed: &Self, file: &str) -> Result<(), LoadError> {
        let refused = |grant: String| LoadError::GrantNotAllowed {
            file: file.to_owned(),
            grant,
        };
        if self.key_value && !allowed.key_value {
            return Err(refused("key_value".to_owned()));
        }
        let is_covered = |host: &&HostPattern| allowed.http.iter().any(|wide| wide.covers(host));
        match self.http.iter().find(|host| !is_covered(host)) {
            Some(host) => Err(refused(format!("http to {host}"))),
            None => Ok(()),
        }
    }

    /// Whether requests may go to the host of a URL.
    pub fn allow_host(&self, host: &str) -> bool {
        self.http.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether an interface of the contract is for who was granted it, and if so, by which key and
    /// whether it was.
    pub(crate) fn of(&self, interface: &str) -> Option<(&'static str, bool)> {
        match interface {
            "key-value" => Some(("key_value = true", self.key_value)),
            "http-client" => Some(("http = [the hosts]", !self.http.is_empty())),
            _ => None,
        }
    }
}
