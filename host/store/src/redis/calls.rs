//! Calls: each is about one shard, several go to all their shards at once, and a shard that is away holds up
//! no other.

use std::time::Duration;

use futures_util::future::try_join_all;
use wasmhook_core::TenantId;

use super::functions::Call;
use super::reply::Reply;
use super::{CHUNK, RedisStore};
use crate::error::StoreError;

/// At most this many bytes of payload in one enqueue call, unless a single event has more.
const CHUNK_BYTES: usize = 4 << 20;

impl RedisStore {
    pub(super) async fn run(&self, name: &'static str, call: &Call) -> Result<Reply, StoreError> {
        let shard = call.about();
        let patience = if call.holds_up() {
            self.absence.patience(shard)
        } else {
            Duration::MAX
        };
        let running = self.functions.run(&self.link, call);
        let value = self.on_shard(shard, patience, running).await?;
        Reply::new(value).ok_or_else(|| self.link.unexpected(name))
    }

    /// Does something that only one shard is needed for, or, under the number after theirs, the list of
    /// refused events. In a cluster one that is away is not waited for, and others wait no longer than
    /// `patience` to find that it is.
    pub(super) async fn on_shard<T>(
        &self,
        shard: usize,
        patience: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !self.link.is_cluster() {
            return work.await;
        }
        let unavailable = |reason: String| StoreError::Unavailable {
            store: self.link.name().to_owned(),
            reason,
        };
        if self.absence.is_away(shard) {
            return Err(unavailable(format!("shard {shard} does not answer")));
        }
        let answer = tokio::time::timeout(patience, work)
            .await
            .unwrap_or_else(|_| {
                self.absence.slow(shard);
                Err(unavailable(format!(
                    "shard {shard} has not answered within {patience:?}"
                )))
            });
        match &answer {
            Err(error @ StoreError::Unavailable { .. }) => {
                let question = if shard < self.keys.shards() {
                    self.call("backlog", shard).into_command()
                } else {
                    let mut command = redis::cmd("EXISTS");
                    command.arg(self.keys.rejected());
                    command
                };
                self.absence
                    .away(shard, error, &self.link, question, &self.outlook);
            }
            _ => self.absence.answered(shard),
        }
        answer
    }

    /// Runs `calls`, shards at once and the calls of one shard in order, and hands each reply with
    /// the places it is about to `each`.
    pub(super) async fn run_all(
        &self,
        name: &'static str,
        calls: Vec<Vec<(Vec<usize>, Call)>>,
        mut each: impl FnMut(&[usize], Reply) -> Option<()>,
    ) -> Result<(), StoreError> {
        let shards = calls.into_iter().filter(|calls| !calls.is_empty());
        let answers = try_join_all(shards.map(|calls| async move {
            let mut replies = Vec::with_capacity(calls.len());
            for (places, call) in calls {
                let reply = self.run(name, &call).await?;
                replies.push((places, reply));
            }
            Ok::<_, StoreError>(replies)
        }))
        .await?;
        for (places, reply) in answers.into_iter().flatten() {
            each(&places, reply).ok_or_else(|| self.link.unexpected(name))?;
        }
        Ok(())
    }

    /// Groups `items` by shard and puts them into calls; `write` adds one to a call and says how
    /// large it is. With `wakes`, each call begins with the channel and this store's mark.
    pub(super) fn group<'a, T>(
        &self,
        name: &'static str,
        items: &'a [T],
        wakes: bool,
        tenant: impl Fn(&'a T) -> &'a TenantId,
        mut write: impl FnMut(&mut Call, &T) -> usize,
    ) -> Vec<Vec<(Vec<usize>, Call)>> {
        let mut calls: Vec<Vec<(Vec<usize>, Call)>> = Vec::new();
        calls.resize_with(self.keys.shards(), Vec::new);
        let mut sizes = vec![0; self.keys.shards()];
        for (place, item) in items.iter().enumerate() {
            let shard = self.keys.shard_of(tenant(item));
            let full = calls[shard]
                .last()
                .is_none_or(|(places, _)| places.len() >= CHUNK || sizes[shard] >= CHUNK_BYTES);
            if full {
                let mut call = self.call(name, shard);
                if wakes {
                    call.arg(&self.channel).arg(&self.me);
                }
                calls[shard].push((Vec::new(), call));
                sizes[shard] = 0;
            }
            if let Some((places, call)) = calls[shard].last_mut() {
                places.push(place);
                sizes[shard] += write(call, item);
            }
        }
        calls
    }
}
