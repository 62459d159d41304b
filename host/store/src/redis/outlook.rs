//! Which shards are worth asking for work, and when.
//!
//! A shard that gave less than it was asked for has said when its next delivery becomes due. Until
//! then, or until there is news of it, asking it would be a round trip for nothing: with many shards
//! and few busy tenants, most of them. What is believed here only saves work while there is other
//! work: who finds nothing in the shards worth asking asks the others as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a shard is left alone at most while others have work: bounds the harm of a lost message.
const LONGEST: Duration = Duration::from_secs(5);
/// When a caller that found work is told to ask again for the sake of shards that were not asked.
const AGAIN: Duration = Duration::from_millis(100);

/// There is or may be work now.
const NOW: u64 = 0;
/// Somebody is asking; news that come meanwhile make it `NOW`.
const ASKING: u64 = 1;

/// What is believed of the shards.
pub(super) struct Outlook {
    /// For each shard, when to ask next, in microseconds since `start`, or one of the above.
    shards: Vec<AtomicU64>,
    start: Instant,
    news: Notify,
    /// When others were last told that there is more work than this host asked for.
    told: AtomicU64,
}

impl Outlook {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| AtomicU64::new(NOW)).collect(),
            start: Instant::now(),
            news: Notify::new(),
            told: AtomicU64::new(0),
        }
    }

    fn micros(&self, time: Instant) -> u64 {
        let micros = time.saturating_duration_since(self.start).as_micros();
        // Beyond the two special values.
        u64::try_from(micros).map_or(u64::MAX, |micros| micros.saturating_add(2))
    }

    /// There may be work in a shard.
    pub(super) fn work(&self, shard: usize) {
        if let Some(at) = self.shards.get(shard) {
            at.store(NOW, Ordering::SeqCst);
            self.news.notify_waiters();
        }
    }

    /// There may be work anywhere.
    pub(super) fn work_anywhere(&self) {
        for at in &self.shards {
            at.store(NOW, Ordering::SeqCst);
        }
        self.news.notify_waiters();
    }

    /// The shards worth asking now and the others, each from `first` on.
    pub(super) fn worth_asking(&self, first: usize) -> (Vec<usize>, Vec<usize>) {
        let now = self.micros(Instant::now());
        let count = self.shards.len();
        (0..count)
            .map(|n| (first + n) % count)
            .partition(|shard| self.shards[*shard].load(Ordering::SeqCst) <= now)
    }

    /// When to ask again although a shard that was asked has something only in `next`: there are
    /// shards that were not asked.
    pub(super) fn again(next: Option<Duration>) -> Duration {
        next.map_or(AGAIN, |next| next.min(AGAIN))
    }

    /// Whether others may be told now that there is more work than this host asks for: ten times a
    /// second is soon enough for them, and costs nothing.
    pub(super) fn may_tell(&self) -> bool {
        let now = self.micros(Instant::now());
        let told = self.told.load(Ordering::Relaxed);
        let often = u64::try_from(AGAIN.as_micros()).unwrap_or(u64::MAX);
        let due = told == 0 || now.saturating_sub(told) >= often;
        due && self
            .told
            .compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// A shard is about to be asked.
    pub(super) fn asking(&self, shard: usize) {
        self.shards[shard].store(ASKING, Ordering::SeqCst);
    }

    /// A shard gave all that it was asked for: there may be more.
    pub(super) fn more(&self, shard: usize) {
        self.shards[shard].store(NOW, Ordering::SeqCst);
    }

    /// A shard gave what it had, and has something again in `next`, if ever. News that came while
    /// it was asked stand.
    pub(super) fn empty(&self, shard: usize, next: Option<Duration>) {
        let wait = next.map_or(LONGEST, |next| next.min(LONGEST));
        let at = self.micros(Instant::now() + wait);
        let _ = self.shards[shard].compare_exchange(ASKING, at, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Returns when there are news, or after `timeout`; at once when there are some already.
    pub(super) async fn wait(&self, timeout: Duration) {
        let news = self.news.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        // Who was asking and did not come back may have left something.
        let known = |at: &AtomicU64| at.load(Ordering::SeqCst) <= ASKING;
        if !self.shards.iter().any(known) {
            let _ = tokio::time::timeout(timeout, news).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_left_alone_until_its_time_or_news() {
        let outlook = Outlook::new(3);
        assert_eq!(outlook.worth_asking(1), (vec![1, 2, 0], vec![]));
        for shard in 0..3 {
            outlook.asking(shard);
        }
        outlook.empty(0, Some(Duration::from_secs(60)));
        outlook.empty(1, None);
        outlook.more(2);
        assert_eq!(outlook.worth_asking(0), (vec![2], vec![0, 1]));
        outlook.work(1);
        assert_eq!(outlook.worth_asking(0), (vec![1, 2], vec![0]));
        outlook.asking(1);
        outlook.empty(1, Some(Duration::ZERO));
        assert_eq!(outlook.worth_asking(1), (vec![1, 2], vec![0]));
    }

    #[test]
    fn news_that_come_while_a_shard_is_asked_stand() {
        let outlook = Outlook::new(2);
        outlook.asking(0);
        outlook.asking(1);
        outlook.work(0);
        outlook.empty(0, None);
        outlook.empty(1, None);
        assert_eq!(outlook.worth_asking(0), (vec![0], vec![1]));
    }
}
