//! Retention: finished deliveries go when their time is over or a tenant has too many.

use std::time::Duration;

use super::{RedisStore, micros};
use crate::error::StoreError;
use crate::queue::Retention;

/// Finished deliveries looked at per call of retention.
const RETAIN_SCAN: usize = 1000;
/// Tenants per call of retention.
const RETAIN_TENANTS: usize = 200;

impl RedisStore {
    /// Removes some of what is past its retention; zero when nothing is left.
    pub(super) async fn retain_all(&self, retention: &Retention) -> Result<usize, StoreError> {
        let age = micros(retention.age) / 1000;
        let (mut removed, mut failed) = (0, None);
        for shard in 0..self.keys.shards() {
            match self.retain_in(shard, age, retention.count, removed).await {
                Ok(more) => removed += more,
                // The others are not to fill up meanwhile.
                Err(error @ StoreError::Unavailable { .. }) if self.link.is_cluster() => {
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
            if removed >= RETAIN_SCAN {
                return Ok(removed);
            }
        }
        match failed {
            Some(error) if removed == 0 => Err(error),
            _ => Ok(removed),
        }
    }

    /// Removes what is past its retention in one shard, age in ms, until it is all gone or enough was done;
    /// `before` is how many others have lost.
    async fn retain_in(
        &self,
        shard: usize,
        age: u64,
        count: usize,
        before: usize,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        let tenants = self
            .on_shard(shard, Duration::MAX, self.shard_tenants(shard))
            .await?;
        for tenants in tenants.chunks(RETAIN_TENANTS) {
            loop {
                let mut call = self.call("retain", shard);
                call.arg(age).arg(count).arg(RETAIN_SCAN).arg(tenants);
                let mut reply = self.run("retain", &call).await?;
                let unexpected = || self.link.unexpected("retain");
                let gone = reply.int().ok_or_else(unexpected)?;
                let looked = reply.int().ok_or_else(unexpected)?;
                removed += usize::try_from(gone).map_err(|_| unexpected())?;
                if before + removed >= RETAIN_SCAN {
                    return Ok(removed);
                }
                if usize::try_from(looked).map_err(|_| unexpected())? < RETAIN_SCAN {
                    break;
                }
            }
        }
        Ok(removed)
    }
}
