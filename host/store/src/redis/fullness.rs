//! How much there is: in the shards, and in the memory of their servers.

use futures_util::future::try_join_all;
use redis::Value;

use super::RedisStore;
use super::connection::Link;
use crate::error::StoreError;
use crate::queue::{Backlog, Fullness};

impl RedisStore {
    pub(super) async fn how_full(&self) -> Result<Fullness, StoreError> {
        // What is in a shard that is away can grow no more; the others are not to be judged by it.
        let backlog = self
            .backlog_of(|shard| !self.absence.is_away(shard))
            .await?;
        let mut servers: Vec<ServerMemory> = Vec::new();
        for shard in 0..self.keys.shards() {
            if self.absence.is_away(shard) {
                continue;
            }
            if let Some(server) = self.server_memory(shard).await?
                && servers.iter().all(|known| known.run_id != server.run_id)
            {
                servers.push(server);
            }
            if !self.link.is_cluster() {
                break;
            }
        }
        Ok(Fullness {
            waiting: backlog.waiting + backlog.leased,
            memory_percent: servers.iter().filter_map(ServerMemory::percent).max(),
            bytes: (!servers.is_empty()).then(|| servers.iter().map(|server| server.used).sum()),
        })
    }

    /// How full the server of a shard is, if it tells.
    async fn server_memory(&self, shard: usize) -> Result<Option<ServerMemory>, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg("server").arg("memory");
        let answer = self.link.raw_at(self.keys.shard(shard), &command).await;
        let answer = match answer {
            // A user that may not ask is not worse off than on a server without a limit.
            Err(error) if Link::is_forbidden(&error) => return Ok(None),
            answer => answer.map_err(|error| self.link.failure("INFO", &error))?,
        };
        let text = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => return Err(self.link.unexpected("INFO")),
        };
        Ok(ServerMemory::read(&text))
    }

    /// How much is in these shards.
    pub(super) async fn backlog_of(
        &self,
        asked: impl Fn(usize) -> bool,
    ) -> Result<Backlog, StoreError> {
        let calls: Vec<_> = (0..self.keys.shards())
            .filter(|shard| asked(*shard))
            .map(|shard| self.call("backlog", shard))
            .collect();
        let replies = try_join_all(calls.iter().map(|call| self.run("backlog", call))).await?;
        let mut sum = Backlog::default();
        for mut reply in replies {
            let mut count = || {
                let number = reply.int().and_then(|number| u64::try_from(number).ok());
                number.ok_or_else(|| self.link.unexpected("backlog"))
            };
            let (open, leased) = (count()?, count()?);
            sum.waiting += open.saturating_sub(leased);
            sum.leased += leased;
            sum.succeeded += count()?;
            sum.dead_letter += count()?;
            sum.stalling_endpoints += count()?;
        }
        Ok(sum)
    }
}

/// What a server says of its memory.
struct ServerMemory {
    /// Tells servers apart.
    run_id: String,
    /// In bytes.
    used: u64,
    /// Zero for none.
    limit: u64,
}

impl ServerMemory {
    fn read(info: &str) -> Option<Self> {
        let figure = |name: &str| -> Option<&str> {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            Some(lines.find(|(key, _)| *key == name)?.1.trim())
        };
        Some(Self {
            run_id: figure("run_id")?.to_owned(),
            used: figure("used_memory")?.parse().ok()?,
            limit: figure("maxmemory")?.parse().ok()?,
        })
    }

    /// The share of its limit that it uses.
    fn percent(&self) -> Option<u8> {
        let percent = self.used.saturating_mul(100).checked_div(self.limit)?;
        Some(u8::try_from(percent).unwrap_or(u8::MAX))
    }
}
