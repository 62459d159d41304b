//! The list of refused events, which has a slot of its own.

use super::RedisStore;
use crate::error::StoreError;
use crate::queue::RejectedEvent;

/// How many refused events are kept.
pub const MAX_REJECTED: usize = 10_000;

impl RedisStore {
    pub(super) async fn add_rejected(&self, events: &[RejectedEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let key = self.keys.rejected();
        let skip = events.len().saturating_sub(MAX_REJECTED);
        let mut pipeline = redis::pipe();
        for events in events[skip..].chunks(1000) {
            let push = pipeline.cmd("LPUSH").arg(&key);
            for event in events {
                push.arg(serde_json::to_string(event).unwrap_or_default());
            }
            push.ignore();
        }
        pipeline
            .cmd("LTRIM")
            .arg(&key)
            .arg(0)
            .arg(MAX_REJECTED - 1)
            .ignore();
        let list = self.keys.shards();
        let patience = self.absence.patience(list);
        let writing = self.link.write("LPUSH", &pipeline);
        self.on_shard(list, patience, writing).await
    }

    pub(super) async fn newest_rejected(
        &self,
        limit: usize,
    ) -> Result<Vec<RejectedEvent>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("LRANGE");
        command
            .arg(self.keys.rejected())
            .arg(0)
            .arg(limit.min(MAX_REJECTED) - 1);
        let lines: Vec<Vec<u8>> = self.link.query("LRANGE", &command).await?;
        // A line of a newer version may be of another form; the others are still worth reading.
        Ok(lines
            .iter()
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}
