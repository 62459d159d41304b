//! Leasing what tenants have who had nothing before.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::lease::{REST, ShardBatch};
use super::offer::Offer;
use super::{CHUNK, RedisStore};
use crate::queue::{LeaseRequest, Leased, NewWork};

impl RedisStore {
    /// Notes what a lease of new work left behind.
    pub(super) fn note_left(&self, part: &ShardBatch) {
        if part.taken >= part.quota {
            self.outlook.work(part.shard);
        } else if part.next_due == Some(Duration::ZERO) {
            self.outlook.rest(part.shard);
        }
    }

    /// Brings a worker what was leased for it when it was enqueued.
    pub(super) async fn bring(&self, offer: Offer, leased: Vec<Leased>) {
        if let Err(leased) = offer.bring(leased)
            && let Err(error) = self.release_leases(&leased).await
        {
            tracing::warn!(%error, "what nobody waited for any more comes again when its lease ends");
        }
    }
}

#[async_trait]
impl NewWork for RedisStore {
    async fn wait(&self, request: &LeaseRequest, light: usize, timeout: Duration) -> Vec<Leased> {
        if request.max == 0 {
            self.outlook.wait_for_news(timeout).await;
            return Vec::new();
        }
        let mut waiting = self.offers.make(request.clone(), light);
        let brought = tokio::select! {
            biased;
            brought = waiting.brought() => Some(brought),
            () = self.outlook.wait_for_news(timeout) => None,
        };
        let brought = match brought {
            Some(brought) => brought,
            None => waiting.end().await,
        };
        self.begin(&brought);
        brought
    }

    fn interrupt(&self) {
        self.outlook.work_anywhere();
    }

    async fn lease(&self, request: &LeaseRequest, light: usize) -> Vec<Leased> {
        let shards = self.outlook.take_news(request.max);
        for shard in &shards {
            self.outlook.unsure(*shard);
        }
        let quota = |n: usize| {
            let even = request.max / shards.len() + usize::from(n < request.max % shards.len());
            even.min(CHUNK)
        };
        let calls = shards
            .iter()
            .enumerate()
            .map(|(n, shard)| self.lease_shard(*shard, quota(n), request, Some(light)));
        let mut leased = Vec::new();
        for (shard, answer) in shards.iter().zip(join_all(calls).await) {
            match answer {
                Ok(part) => {
                    self.outlook.sure(*shard);
                    self.note_left(&part);
                    // Nothing, if something was noted.
                    self.outlook.empty(part.shard, part.next_due);
                    leased.extend(part.leased);
                }
                // It is asked for all its work after a rest.
                Err(error) => {
                    self.outlook.empty(*shard, Some(REST));
                    tracing::warn!(%error, "a shard could not be leased from");
                }
            }
        }
        self.begin(&leased);
        leased
    }

    async fn wait_for_rest(&self, timeout: Duration) {
        self.outlook.wait_for_rest(timeout).await;
    }
}
