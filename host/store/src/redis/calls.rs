//! Calls: each is about one shard, several go to all their shards at once, and a shard that is away holds up
//! no other.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Cmd;
use wasmhook_core::TenantId;

use super::functions::Call;
use super::reply::Reply;
use super::{CHUNK, RedisStore};
use crate::error::StoreError;

/// At most about this many bytes in one call, unless a single item has more.
const CHUNK_BYTES: usize = 4 << 20;

/// What goes into one call.
#[derive(Default)]
pub(super) struct Chunk {
    /// The places of the items.
    pub(super) places: Vec<usize>,
    /// How many bytes they take, about.
    pub(super) bytes: usize,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.places.len() >= CHUNK || self.bytes >= CHUNK_BYTES
    }
}

impl RedisStore {
    pub(super) async fn run(&self, name: &'static str, call: &Call) -> Result<Reply, StoreError> {
        let running = self.functions.run(&self.link, call);
        let value = self
            .on_shard(call.about(), self.patience(call), running)
            .await?;
        Reply::new(value).ok_or_else(|| self.link.unexpected(name))
    }

    /// Makes a call and runs a command before it, on keys of the same shard, in one step. Nothing, if a server
    /// did not know the functions: it does now, but the command was run.
    pub(super) async fn run_after(
        &self,
        name: &'static str,
        command: Cmd,
        call: Call,
    ) -> Result<Option<Reply>, StoreError> {
        let (shard, patience) = (call.about(), self.patience(&call));
        let running = self.functions.run_after(&self.link, command, call);
        match self.on_shard(shard, patience, running).await? {
            Some(value) => {
                let reply = Reply::new(value).ok_or_else(|| self.link.unexpected(name))?;
                Ok(Some(reply))
            }
            None => Ok(None),
        }
    }

    fn patience(&self, call: &Call) -> Duration {
        if call.holds_up() {
            self.absence.patience(call.about())
        } else {
            Duration::MAX
        }
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

    /// Groups `items` by shard and puts them into calls; `size` says how many bytes one takes about, and `write`
    /// adds it to a call. With `wakes`, each call begins with the channel and this store's mark.
    pub(super) fn group<'a, T>(
        &self,
        name: &'static str,
        items: &'a [T],
        wakes: bool,
        tenant: impl Fn(&'a T) -> &'a TenantId,
        size: impl Fn(&T) -> usize,
        write: impl Fn(&mut Call, &T),
    ) -> Vec<Vec<(Vec<usize>, Call)>> {
        let call = |shard: usize, chunk: Chunk| {
            let mut call = self.call(name, shard);
            call.reserve(chunk.bytes);
            if wakes {
                call.arg(&self.channel).arg(&self.me);
            }
            for place in &chunk.places {
                write(&mut call, &items[*place]);
            }
            (chunk.places, call)
        };
        self.parted(items, tenant, size)
            .into_iter()
            .enumerate()
            .map(|(shard, chunks)| chunks.into_iter().map(|chunk| call(shard, chunk)).collect())
            .collect()
    }

    /// Parts `items` among the shards, and those of a shard among as many calls as they need.
    pub(super) fn parted<'a, T>(
        &self,
        items: &'a [T],
        tenant: impl Fn(&'a T) -> &'a TenantId,
        size: impl Fn(&T) -> usize,
    ) -> Vec<Vec<Chunk>> {
        let mut chunks: Vec<Vec<Chunk>> = Vec::new();
        chunks.resize_with(self.keys.shards(), Vec::new);
        for (place, item) in items.iter().enumerate() {
            let chunks = &mut chunks[self.keys.shard_of(tenant(item))];
            if chunks.last().is_none_or(Chunk::is_full) {
                chunks.push(Chunk::default());
            }
            if let Some(chunk) = chunks.last_mut() {
                chunk.places.push(place);
                chunk.bytes += size(item);
            }
        }
        chunks
    }
}
