//! A small key-value store for the plugins of each tenant, beside the queue and in the same place.

use std::time::Duration;

use async_trait::async_trait;
use wasmhook_core::TenantId;

use crate::error::StoreError;

/// How much one tenant may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValueQuota {
    /// Keys.
    pub keys: u64,
    /// Bytes of all keys and values together.
    pub bytes: u64,
}

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// How long it is kept, in whole milliseconds, one at least; until it is removed if `None`.
    pub ttl: Option<Duration>,
    /// What the tenant may keep in all. A write that would go beyond it is refused and changes nothing;
    /// one that takes less than what was there before always passes.
    pub quota: KeyValueQuota,
}

/// What a tenant kept, as far as it counted; what had ended may still have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Keys.
    pub keys: u64,
    /// Bytes of all keys and values together.
    pub bytes: u64,
}

/// Why something was not written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyValueError {
    /// The tenant has as many keys as it may.
    #[error("the tenant may keep {0} keys and has them")]
    TooManyKeys(u64),
    /// The tenant has as many bytes as it may.
    #[error("the tenant may keep {0} bytes of keys and values, and this is more")]
    TooManyBytes(u64),
    /// What is there is no whole number, or the sum does not fit into 64 bits.
    #[error("the value is not a number that can be added to")]
    NotANumber,
    /// The store's own trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keys and values of tenants. No tenant sees another's.
///
/// Each call is one atomic step. A value that has ended is not there any more, for reading and for the
/// quota alike. A write whose answer was lost may have happened.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// The value of a key, if it is there.
    async fn read(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError>;

    /// Sets a key, in place of what was there, its end included.
    async fn set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &[u8],
        writing: Writing,
    ) -> Result<(), KeyValueError>;

    /// Removes a key; whether it was there.
    async fn remove(&self, tenant: &TenantId, key: &str) -> Result<bool, KeyValueError>;

    /// Adds to a number, which is kept as decimal text, and gives the sum. A key that is not there
    /// counts as zero and is made as `writing` says; one that is there keeps its end.
    async fn increment(
        &self,
        tenant: &TenantId,
        key: &str,
        by: i64,
        writing: Writing,
    ) -> Result<i64, KeyValueError>;

    /// Sets a key (to `Some`), or removes it (`None`), if its value is the expected one, or, with
    /// `None`, if it is not there. Whether that was so.
    async fn compare_and_swap(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        writing: Writing,
    ) -> Result<bool, KeyValueError>;

    /// Removes all that a tenant kept, its counts included, and tells how much that was. It may take several
    /// steps, each of them short, so what is written meanwhile may go or stay; a call that was cut off is
    /// made again.
    async fn forget(&self, tenant: &TenantId) -> Result<Forgotten, KeyValueError>;
}

/// The number that a value is, in the one form that numbers are kept in.
pub(crate) fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Whole milliseconds, one at least.
pub(crate) fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis())
        .unwrap_or(i64::MAX)
        .clamp(1, MAX_MILLIS)
}

/// A hundred years: what is longer is for ever, and this still adds up with any time of day.
const MAX_MILLIS: i64 = 100 * 366 * 24 * 60 * 60 * 1000;
