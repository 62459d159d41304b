//! Which shards are worth asking for work, and when.
//!
//! A shard that gave less than it was asked for has said when its next delivery becomes due. Until
//! then, or until there is news of it, asking it would be a round trip for nothing: with many shards
//! and few busy tenants, most of them. What is believed here only saves work while there is other
//! work: who finds nothing in the shards worth asking asks the others as well.
//!
//! News of a shard are that a tenant may have work who had none. They are for who serves such tenants
//! apart; all other work is the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::select_all;
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
    /// For each shard, whether there are news that nobody has gone after yet.
    fresh: Vec<AtomicBool>,
    /// For each shard, whether a call for new work got no answer: it may have leased something.
    unsure: Vec<AtomicBool>,
    news: Notify,
    rest: Notify,
    /// When others were last told that there is more work than this host asked for.
    told: AtomicU64,
}

impl Outlook {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| AtomicU64::new(NOW)).collect(),
            start: Instant::now(),
            fresh: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            unsure: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            news: Notify::new(),
            rest: Notify::new(),
            told: AtomicU64::new(0),
        }
    }

    fn micros(&self, time: Instant) -> u64 {
        let micros = time.saturating_duration_since(self.start).as_micros();
        // Beyond the two special values.
        u64::try_from(micros).map_or(u64::MAX, |micros| micros.saturating_add(2))
    }

    /// There may be work in a shard, of tenants that had none.
    pub(super) fn work(&self, shard: usize) {
        if let Some(at) = self.shards.get(shard) {
            self.fresh[shard].store(true, Ordering::SeqCst);
            at.store(NOW, Ordering::SeqCst);
            self.news.notify_waiters();
        }
    }

    /// There may be other work in a shard.
    pub(super) fn rest(&self, shard: usize) {
        if let Some(at) = self.shards.get(shard) {
            at.store(NOW, Ordering::SeqCst);
            self.rest.notify_waiters();
        }
    }

    /// There may be work anywhere.
    pub(super) fn work_anywhere(&self) {
        for shard in 0..self.shards.len() {
            self.work(shard);
            self.rest(shard);
        }
    }

    /// A shard is about to be called for new work, and has not answered yet. Says whether one before has not either.
    pub(super) fn unsure(&self, shard: usize) -> bool {
        self.unsure[shard].swap(true, Ordering::SeqCst)
    }

    /// A call of a shard for new work was answered.
    pub(super) fn sure(&self, shard: usize) {
        self.unsure[shard].store(false, Ordering::SeqCst);
    }

    /// A shard answers. If it did not when it was called for new work, the next such call puts back what that one
    /// leased.
    pub(super) fn answers(&self, shard: usize) {
        if self.unsure[shard].load(Ordering::SeqCst) {
            self.work(shard);
        }
    }

    /// The shards with news, at most so many. Who takes them is about to ask them.
    pub(super) fn take_news(&self, most: usize) -> Vec<usize> {
        let with_news = |shard: &usize| self.fresh[*shard].load(Ordering::SeqCst);
        let shards: Vec<usize> = (0..self.shards.len())
            .filter(with_news)
            .take(most)
            .collect();
        for shard in &shards {
            // In this order: what comes in between is a reason to ask again.
            self.asking(*shard);
            self.fresh[*shard].store(false, Ordering::SeqCst);
        }
        shards
    }

    /// The shards worth asking now, and the others.
    pub(super) fn worth_asking(&self) -> (Vec<usize>, Vec<usize>) {
        let now = self.micros(Instant::now());
        (0..self.shards.len()).partition(|shard| self.shards[*shard].load(Ordering::SeqCst) <= now)
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
        self.rest.notify_waiters();
    }

    /// Returns when there may be work, or after `timeout`; at once when there may be some already.
    pub(super) async fn wait(&self, timeout: Duration) {
        // Who was asking and did not come back may have left something.
        let known = |at: &AtomicU64| at.load(Ordering::SeqCst) <= ASKING;
        self.until(timeout, &[&self.news, &self.rest], || {
            self.shards.iter().any(known)
        })
        .await;
    }

    /// Returns when there are news, or after `timeout`.
    pub(super) async fn wait_for_news(&self, timeout: Duration) {
        let known = |fresh: &AtomicBool| fresh.load(Ordering::SeqCst);
        self.until(timeout, &[&self.news], || self.fresh.iter().any(known))
            .await;
    }

    /// Returns when there may be work other than what news tell of, or after `timeout`.
    pub(super) async fn wait_for_rest(&self, timeout: Duration) {
        let end = Instant::now() + timeout.min(LONGEST);
        loop {
            // Listening begins before looking, so that nothing slips in between.
            let told = self.rest.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let mut next = end;
            for (at, fresh) in self.shards.iter().zip(&self.fresh) {
                match at.load(Ordering::SeqCst) {
                    NOW if !fresh.load(Ordering::SeqCst) => return,
                    NOW | ASKING => {}
                    at => next = next.min(self.start + Duration::from_micros(at)),
                }
            }
            if next <= Instant::now() {
                return;
            }
            // What was told may be no more than that something is due earlier.
            let _ = tokio::time::timeout_at(next.into(), told).await;
        }
    }

    async fn until(&self, timeout: Duration, told: &[&Notify], known: impl Fn() -> bool) {
        // Listening begins before looking, so that nothing slips in between.
        let mut told: Vec<_> = told.iter().map(|told| Box::pin(told.notified())).collect();
        for told in &mut told {
            told.as_mut().enable();
        }
        if !known() {
            let _ = tokio::time::timeout(timeout, select_all(told)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_left_alone_until_its_time_or_news() {
        let outlook = Outlook::new(3);
        assert_eq!(outlook.worth_asking(), (vec![0, 1, 2], vec![]));
        for shard in 0..3 {
            outlook.asking(shard);
        }
        outlook.empty(0, Some(Duration::from_secs(60)));
        outlook.empty(1, None);
        outlook.more(2);
        assert_eq!(outlook.worth_asking(), (vec![2], vec![0, 1]));
        outlook.work(1);
        assert_eq!(outlook.worth_asking(), (vec![1, 2], vec![0]));
        outlook.asking(1);
        outlook.empty(1, Some(Duration::ZERO));
        assert_eq!(outlook.worth_asking(), (vec![1, 2], vec![0]));
    }

    #[tokio::test]
    async fn news_are_taken_once_and_are_not_the_rest() {
        let outlook = Outlook::new(2);
        for shard in 0..2 {
            outlook.asking(shard);
            outlook.empty(shard, Some(Duration::from_secs(60)));
        }
        outlook.work(1);
        outlook.wait_for_news(Duration::MAX).await;
        let rest = outlook.wait_for_rest(Duration::MAX);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, rest).await.is_err());
        assert_eq!(outlook.take_news(8), [1]);
        assert_eq!(outlook.take_news(8), [] as [usize; 0]);
        outlook.rest(1);
        outlook.wait_for_rest(Duration::MAX).await;
        let news = outlook.wait_for_news(Duration::MAX);
        assert!(tokio::time::timeout(soon, news).await.is_err());
    }

    #[tokio::test]
    async fn what_becomes_due_is_waited_for_no_longer_than_that() {
        let outlook = Outlook::new(2);
        for (shard, due) in [(0, 60_000), (1, 30)] {
            outlook.asking(shard);
            outlook.empty(shard, Some(Duration::from_millis(due)));
        }
        outlook.wait_for_rest(Duration::MAX).await;
        assert_eq!(outlook.worth_asking(), (vec![1], vec![0]));
    }

    #[test]
    fn news_that_come_while_a_shard_is_asked_stand() {
        let outlook = Outlook::new(2);
        outlook.asking(0);
        outlook.asking(1);
        outlook.work(0);
        outlook.empty(0, None);
        outlook.empty(1, None);
        assert_eq!(outlook.worth_asking(), (vec![0], vec![1]));
    }
}
