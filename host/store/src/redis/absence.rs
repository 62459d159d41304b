//! Which shards of a cluster do not answer, so that nobody waits for them again and again.
//!
//! The masters of a cluster fail one by one. A call to one that hangs would be waited for as long as an
//! answer may take, and what the client does to find a master again holds up its other calls. So a shard
//! that fails is left alone at once: calls to it are refused here, until a question that is asked of it
//! apart, on a connection for such questions, has been answered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Cmd;
use redis::aio::ConnectionLike as _;
use tokio::time::timeout;

use super::connection::Link;
use super::outlook::Outlook;
use crate::error::StoreError;

/// How long the answer of a shard may take before the others are not to wait for it, at first. Calls take
/// milliseconds, and what was called may be repeated.
const PATIENCE: Duration = Duration::from_secs(1);
/// Waits between questions: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

#[derive(Default)]
struct Shard {
    away: AtomicBool,
    /// How often in a row it took longer than it may: a server that is slow and not away gets more time
    /// each time, up to what any answer may take.
    slow: AtomicU32,
}

/// What is known of the shards.
pub(super) struct Absence {
    shards: Vec<Shard>,
    /// How long an answer may take: one of a shard that was never slow, and any.
    patience: (Duration, Duration),
}

impl Absence {
    /// For so many, whose answers may take `longest`, and `confirming` of that for the sake of replicas.
    pub(super) fn new(shards: usize, confirming: Duration, longest: Duration) -> Arc<Self> {
        let shards = std::iter::repeat_with(Shard::default)
            .take(shards)
            .collect();
        let patience = (PATIENCE + confirming, longest);
        Arc::new(Self { shards, patience })
    }

    pub(super) fn is_away(&self, shard: usize) -> bool {
        self.shards[shard].away.load(Ordering::SeqCst)
    }

    /// How long others may be held up for this shard.
    pub(super) fn patience(&self, shard: usize) -> Duration {
        let slow = self.shards[shard].slow.load(Ordering::Relaxed);
        let (first, longest) = self.patience;
        first.saturating_mul(1 << slow.min(8)).min(longest)
    }

    /// An answer came in time.
    pub(super) fn answered(&self, shard: usize) {
        self.shards[shard].slow.store(0, Ordering::Relaxed);
    }

    /// No answer came in time.
    pub(super) fn slow(&self, shard: usize) {
        self.shards[shard].slow.fetch_add(1, Ordering::Relaxed);
    }

    /// The shard is away; returns whether that is news.
    fn leaves(&self, shard: usize) -> bool {
        !self.shards[shard].away.swap(true, Ordering::SeqCst)
    }

    /// Leaves the shard alone until it answers `question`, and then makes it known that it may have work.
    pub(super) fn away(
        self: &Arc<Self>,
        shard: usize,
        why: &StoreError,
        link: &Link,
        question: Cmd,
        outlook: &Arc<Outlook>,
    ) {
        if !self.leaves(shard) {
            return;
        }
        tracing::warn!(shard, error = %why, "a shard is left alone until it answers");
        let absence = Arc::downgrade(self);
        let (link, outlook) = (link.clone(), Arc::clone(outlook));
        tokio::spawn(async move {
            if answers(&absence, shard, &link, &question).await
                && let Some(absence) = absence.upgrade()
            {
                tracing::info!(shard, "the shard answers again");
                absence.shards[shard].away.store(false, Ordering::SeqCst);
                outlook.work(shard);
            }
        });
    }
}

/// Asks until there is an answer; false when nobody wants to know any more.
async fn answers(absence: &Weak<Absence>, shard: usize, link: &Link, question: &Cmd) -> bool {
    let mut pause = PAUSES.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        let Some(patience) = absence.upgrade().map(|absence| absence.patience(shard)) else {
            return false;
        };
        let asking = async {
            let mut connection = link.apart().await?;
            let answer = connection.req_packed_command(question).await;
            let answer = answer.and_then(redis::Value::extract_error);
            answer.map_err(|error| link.failure("ask", &error))
        };
        match timeout(patience, asking).await {
            Ok(Err(StoreError::Unavailable { .. })) => {}
            // It answers, whatever it says.
            Ok(_) => return true,
            Err(_) => {
                if let Some(absence) = absence.upgrade() {
                    absence.slow(shard);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_is_slow_gets_more_time_each_time_and_no_more_than_any_answer_may_take() {
        let absence = Absence::new(2, Duration::ZERO, Duration::from_secs(10));
        let mut waited = Vec::new();
        for _ in 0..6 {
            waited.push(absence.patience(1).as_secs());
            absence.slow(1);
        }
        assert_eq!(waited, [1, 2, 4, 8, 10, 10]);
        assert_eq!(absence.patience(0).as_secs(), 1);
        absence.answered(1);
        assert_eq!(absence.patience(1).as_secs(), 1);
    }

    #[test]
    fn a_shard_leaves_once() {
        let absence = Absence::new(2, Duration::ZERO, Duration::from_secs(10));
        assert!(absence.leaves(1));
        assert!(!absence.leaves(1));
        assert!(absence.is_away(1));
        assert!(!absence.is_away(0));
    }
}
