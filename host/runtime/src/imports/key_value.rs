//! `wasmhook:plugin/key-value`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::bindings::key_value::{self, Error};
use crate::budget::Import;
use crate::state::State;

/// The longest key, in bytes, as the contract says.
const KEY: usize = 256;

/// Keeps the keys and values of tenants, within their quotas.
#[async_trait]
pub trait KeyValueStore: Send + Sync {
    /// The value of a key.
    async fn get(&self, tenant: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError>;

    /// Set a key.
    async fn set(
        &self,
        tenant: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), KeyValueError>;

    /// Remove a key; whether it was there.
    async fn delete(&self, tenant: &str, key: &str) -> Result<bool, KeyValueError>;

    /// Add to a number; the sum. `ttl` is for one that is made.
    async fn increment(
        &self,
        tenant: &str,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, KeyValueError>;

    /// Set a key, or remove it, if what is there is the expected value, or nothing; whether it was.
    async fn compare_and_swap(
        &self,
        tenant: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Result<bool, KeyValueError>;
}

/// Why nothing was done, as a guest is told it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The tenant has that many keys, and may not have more.
    #[error("the tenant has {0} keys and may not have more")]
    TooManyKeys(u64),
    /// The tenant may not have more bytes than that.
    #[error("the tenant may not have more than {0} bytes")]
    TooManyBytes(u64),
    /// What is there is no number, or the sum is none.
    #[error("not a number")]
    NotANumber,
    /// The store is out of reach. Why is not for guests.
    #[error("the store does not answer")]
    Unavailable,
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        match error {
            KeyValueError::TooManyKeys(most) => Self::TooManyKeys(most),
            KeyValueError::TooManyBytes(most) => Self::TooManyBytes(most),
            KeyValueError::NotANumber => Self::NotANumber,
            KeyValueError::Unavailable => Self::Unavailable,
        }
    }
}

/// Says that a component calls what its plugin was not granted, which loading it ought to have refused.
#[derive(Debug, thiserror::Error)]
#[error("it is not granted to this plugin")]
struct NotGranted;

/// The store and whose keys they are, or what the guest is told.
type Found = Result<(Arc<dyn KeyValueStore>, Arc<str>), Error>;

impl State {
    /// Admit a call on a key, and find the store for it.
    fn key_value(&mut self, key: &str, value: Option<&[u8]>) -> wasmtime::Result<Found> {
        self.budget.admit(Import::KeyValue)?;
        if !self.provided.grants.key_value {
            return Err(NotGranted.into());
        }
        if key.is_empty() || key.len() > KEY {
            return Ok(Err(Error::BadKey));
        }
        let most = self.limits.value_bytes;
        if value.is_some_and(|value| value.len() > most) {
            return Ok(Err(Error::ValueTooLarge(
                most.try_into().unwrap_or(u32::MAX),
            )));
        }
        let found = self.provided.services.key_value.clone();
        let tenant = Arc::clone(&self.provided.tenant);
        Ok(found.map(|store| (store, tenant)).ok_or(Error::Unavailable))
    }
}

fn seconds(ttl: Option<u32>) -> Option<Duration> {
    ttl.map(|seconds| Duration::from_secs(seconds.into()))
}

impl key_value::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let (store, tenant) = match self.key_value(&key, None)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        Ok(store.get(&tenant, &key).await.map_err(Error::from))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (store, tenant) = match self.key_value(&key, Some(&value))? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let done = store.set(&tenant, &key, &value, seconds(ttl)).await;
        Ok(done.map_err(Error::from))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<bool, Error>> {
        let (store, tenant) = match self.key_value(&key, None)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        Ok(store.delete(&tenant, &key).await.map_err(Error::from))
    }

    async fn increment(
        &mut self,
        key: String,
        by: i64,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let (store, tenant) = match self.key_value(&key, None)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let sum = store.increment(&tenant, &key, by, seconds(ttl)).await;
        Ok(sum.map_err(Error::from))
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let (store, tenant) = match self.key_value(&key, value.as_deref())? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let (expected, value) = (expected.as_deref(), value.as_deref());
        let swapped = store
            .compare_and_swap(&tenant, &key, expected, value, seconds(ttl))
            .await;
        Ok(swapped.map_err(Error::from))
    }
}
