//! What plugins import besides the log and their configuration, each behind a trait: this crate knows
//! neither a store nor a network.

pub(crate) mod http_client;
pub(crate) mod key_value;
pub(crate) mod signing;

use std::fmt;
use std::sync::Arc;

use crate::grants::Grants;
use http_client::HttpClient;
use key_value::KeyValueStore;

/// What the host has to give to plugins that are granted it. Without one of them the calls of who was
/// granted it fail as they would while it is out of reach, as in a tool that only judges plugins.
#[derive(Clone, Default)]
pub struct Services {
    /// For `wasmhook:plugin/key-value`.
    pub key_value: Option<Arc<dyn KeyValueStore>>,
    /// For `wasmhook:plugin/http-client`.
    pub http: Option<Arc<dyn HttpClient>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("key_value", &self.key_value.is_some())
            .field("http", &self.http.is_some())
            .finish()
    }
}

/// What one plugin of one tenant is given.
#[derive(Clone)]
pub(crate) struct Provided {
    pub(crate) tenant: Arc<str>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) services: Services,
}
