//! The key-value store of plugins, on the store that the deliveries are in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wasmhook_core::TenantId;
use wasmhook_runtime::{KeyValueError, KeyValueStore};
use wasmhook_store::{self as store, KeyValue, KeyValueQuota, Writing};

/// Gives tenants' plugins a part of the store.
pub struct PluginKeyValue {
    store: Arc<dyn KeyValue>,
    quota: KeyValueQuota,
}

impl PluginKeyValue {
    /// On `store`, each tenant within `quota`.
    pub fn new(store: Arc<dyn KeyValue>, quota: KeyValueQuota) -> Self {
        Self { store, quota }
    }

    fn writing(&self, ttl: Option<Duration>) -> Writing {
        Writing {
            ttl,
            quota: self.quota,
        }
    }
}

/// The tenants of plugins are folders of this host, and a folder may have any name.
fn tenant(name: &str) -> Result<TenantId, KeyValueError> {
    TenantId::new(name).map_err(|_| KeyValueError::Unavailable)
}

/// What a guest may know; the rest is the operator's.
fn told(error: store::KeyValueError) -> KeyValueError {
    match error {
        store::KeyValueError::TooManyKeys(most) => KeyValueError::TooManyKeys(most),
        store::KeyValueError::TooManyBytes(most) => KeyValueError::TooManyBytes(most),
        store::KeyValueError::NotANumber => KeyValueError::NotANumber,
        error => {
            tracing::warn!(%error, "a plugin's key-value call failed");
            KeyValueError::Unavailable
        }
    }
}

#[async_trait]
impl KeyValueStore for PluginKeyValue {
    async fn get(&self, name: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.store.read(&tenant(name)?, key).await.map_err(told)
    }

    async fn set(
        &self,
        name: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), KeyValueError> {
        let set = self
            .store
            .set(&tenant(name)?, key, value, self.writing(ttl))
            .await;
        set.map_err(told)
    }

    async fn delete(&self, name: &str, key: &str) -> Result<bool, KeyValueError> {
        self.store.remove(&tenant(name)?, key).await.map_err(told)
    }

    async fn increment(
        &self,
        name: &str,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, KeyValueError> {
        let sum = self
            .store
            .increment(&tenant(name)?, key, by, self.writing(ttl))
            .await;
        sum.map_err(told)
    }

    async fn compare_and_swap(
        &self,
        name: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Result<bool, KeyValueError> {
        let writing = self.writing(ttl);
        self.store
            .compare_and_swap(&tenant(name)?, key, expected, value, writing)
            .await
            .map_err(told)
    }
}
