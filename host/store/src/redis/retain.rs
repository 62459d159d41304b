//! Retention: finished deliveries go when their time is over or a tenant has too many.

use std::collections::VecDeque;
use std::time::Duration;

use super::{RedisStore, micros};
use crate::error::StoreError;
use crate::queue::Retention;

/// Finished deliveries looked at per call of retention: it has the server to itself for a millisecond.
const RETAIN_SCAN: usize = 200;
/// Tenants per call of retention.
const RETAIN_TENANTS: usize = 200;

/// What is still to be looked at before all tenants were: shards with some of their tenants.
pub(super) type Round = VecDeque<(usize, Vec<String>)>;

impl RedisStore {
    /// Removes some of what is past its retention; zero when nothing is left.
    pub(super) async fn retain_some(&self, retention: &Retention) -> Result<usize, StoreError> {
        let mut round = self.retaining.lock().await;
        let mut failed = None;
        if round.is_empty() {
            for shard in 0..self.keys.shards() {
                let tenants = self.shard_tenants(shard);
                match self.on_shard(shard, Duration::MAX, tenants).await {
                    Ok(tenants) => round.extend(
                        tenants
                            .chunks(RETAIN_TENANTS)
                            .map(|some| (shard, some.to_vec())),
                    ),
                    Err(error) => failed = Some(self.unless_alone(error)?),
                }
            }
        }
        let mut removed = 0;
        while removed < RETAIN_SCAN
            && let Some((shard, mut tenants)) = round.pop_front()
        {
            match self.retain_in(shard, retention, &tenants).await {
                Ok((gone, done)) => {
                    removed += gone;
                    tenants.drain(..done);
                    if !tenants.is_empty() {
                        round.push_front((shard, tenants));
                    }
                }
                Err(error) => {
                    failed = Some(self.unless_alone(error)?);
                    round.retain(|(other, _)| *other != shard);
                }
            }
        }
        match failed {
            Some(error) if removed == 0 => Err(error),
            _ => Ok(removed),
        }
    }

    /// An error after which others may go on: the shards of a cluster are away one by one, and the others are not
    /// to fill up meanwhile.
    fn unless_alone(&self, error: StoreError) -> Result<StoreError, StoreError> {
        match error {
            StoreError::Unavailable { .. } if self.link.is_cluster() => Ok(error),
            _ => Err(error),
        }
    }

    /// Removes some of what is past its retention of these tenants of a shard. Returns how many deliveries that are,
    /// and with how many of the tenants it is done.
    async fn retain_in(
        &self,
        shard: usize,
        retention: &Retention,
        tenants: &[String],
    ) -> Result<(usize, usize), StoreError> {
        let mut call = self.call("retain", shard);
        call.arg(micros(retention.age) / 1000).arg(retention.count);
        call.arg(RETAIN_SCAN).arg(tenants);
        let mut reply = self.run("retain", &call).await?;
        let mut number = || usize::try_from(reply.int()?).ok();
        let unexpected = || self.link.unexpected("retain");
        let removed = number().ok_or_else(unexpected)?;
        let done = number()
            .filter(|done| *done <= tenants.len())
            .ok_or_else(unexpected)?;
        Ok((removed, done))
    }
}
