//! Where plugins are tried out: under a host's limits and with what a host gives, and nothing that a host
//! keeps.

use std::sync::Arc;

use anyhow::Context as _;
use tempfile::TempDir;
use wasmhook_runtime::PluginHost;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};

use super::runtime;
use crate::config::Config;
use crate::host;

/// A runtime with a key-value store of its own, empty at first. HTTP is what a host on this configuration
/// would give; keys to sign with come with the endpoints.
pub(super) struct Trial {
    host: PluginHost,
    /// Holds the store, and goes after it: fields drop in this order.
    _kept: TempDir,
}

impl Trial {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let kept = tempfile::Builder::new()
            .prefix("wasmhook-plugin-")
            .tempdir()
            .context("cannot make a folder for the key-value store")?;
        let store = EmbeddedStore::open(EmbeddedConfig {
            path: kept.path().to_owned(),
            host: true,
        })?;
        // Setting a client up takes a moment, and no manifest can ask for one then.
        let client = if config.plugins.grants.http.is_empty() {
            None
        } else {
            Some(host::client(config)?)
        };
        let services = host::services(config, Arc::new(store), client);
        Ok(Self {
            host: runtime(config, services)?,
            _kept: kept,
        })
    }

    pub(super) fn host(&self) -> &PluginHost {
        &self.host
    }
}
