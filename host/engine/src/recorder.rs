//! Writes what ended, many at a time.
//!
//! A store may be in parts that fail one by one. What ended in a part that fails is kept apart and tried
//! again by itself, and what ends in the others is written meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use wasmhook_core::{Delivery, TenantId};
use wasmhook_store::{Leased, Outcome, Recorded, Store, StoreError};

use crate::backoff::Backoff;
use crate::metric;

/// Outcomes written in one call.
const BATCH: usize = 128;

/// While outcomes come often they are written this far apart, for a call costs the store as much as several
/// outcomes do, and others wait for it meanwhile. Only its place waits for an outcome then: with 5,000 a second
/// Redis had a sixth to a fifth less to do.
const APART: Duration = Duration::from_millis(3);
/// They come often when the last call wrote so many.
const OFTEN: usize = 4;
/// So many are worth a call of their own, or this part of all places.
const ENOUGH: usize = 12;
const PART_OF_PLACES: usize = 8;

/// How a lease ended.
pub(crate) enum Ending {
    /// With an attempt.
    Attempted(Box<Outcome>),
    /// Given back unused.
    Released(Box<Leased>),
}

impl Ending {
    fn delivery(&self) -> &Delivery {
        match self {
            Self::Attempted(outcome) => &outcome.leased.delivery,
            Self::Released(leased) => &leased.delivery,
        }
    }

    fn tenant(&self) -> &TenantId {
        &self.delivery().tenant_id
    }

    /// Whether the next delivery of a sequence waits for it.
    fn holds_up(&self) -> bool {
        self.delivery().sequence.is_some()
    }
}

/// One lease that ended. Its place among the deliveries in flight is kept until it is written.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What is written to one part of the store in one step, with the places that it holds.
#[derive(Default)]
struct Batch {
    outcomes: Vec<Outcome>,
    releases: Vec<Leased>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    fn add(&mut self, ended: Ended) {
        self.permits.push(ended.permit);
        match ended.ending {
            Ending::Attempted(outcome) => self.outcomes.push(*outcome),
            Ending::Released(leased) => self.releases.push(*leased),
        }
    }

    fn append(&mut self, mut more: Self) {
        self.outcomes.append(&mut more.outcomes);
        self.releases.append(&mut more.releases);
        self.permits.append(&mut more.permits);
    }

    fn len(&self) -> usize {
        self.outcomes.len() + self.releases.len()
    }

    /// Takes out as much as is written at once.
    fn next(&mut self) -> Self {
        let outcomes = self.outcomes.len().min(BATCH);
        let releases = self.releases.len().min(BATCH);
        let permits = self.permits.len().min(outcomes + releases);
        Self {
            outcomes: self.outcomes.drain(..outcomes).collect(),
            releases: self.releases.drain(..releases).collect(),
            permits: self.permits.drain(..permits).collect(),
        }
    }
}

/// A part of the store that failed, and what is to be written there.
struct Failing {
    waiting: Batch,
    backoff: Backoff,
    retry_at: Instant,
}

/// Writes what ended. What it still holds when there is nothing more to come is for [`Recorder::finish`].
pub(crate) struct Recorder {
    store: Arc<dyn Store>,
    failing: BTreeMap<usize, Failing>,
    /// How much may wait for parts that fail without holding a place.
    places: usize,
}

/// Writes until the last sender is gone. While one batch is under way the next one gathers, and for a moment
/// after it, so that batches grow with the load.
pub(crate) async fn run(store: Arc<dyn Store>, mut ended: mpsc::Receiver<Ended>) -> Recorder {
    // While the only part there is fails there is nothing to use the places for.
    let places = match store.parts() {
        0 | 1 => 0,
        _ => ended.max_capacity(),
    };
    let mut recorder = Recorder {
        store,
        failing: BTreeMap::new(),
        places,
    };
    let mut gathered = Vec::with_capacity(BATCH);
    let enough = ENOUGH.min(ended.max_capacity() / PART_OF_PLACES);
    let mut next_turn = Instant::now();
    loop {
        let retry_at = recorder.retry_at();
        tokio::select! {
            received = ended.recv_many(&mut gathered, BATCH) => {
                if received == 0 {
                    break;
                }
            }
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
        }
        gather(&mut ended, &mut gathered, enough, next_turn, |ended| {
            ended.ending.holds_up()
        })
        .await;
        if gathered.len() >= OFTEN {
            next_turn = Instant::now() + APART;
        }
        recorder.turn(gathered.drain(..)).await;
    }
    recorder
}

/// Waits for more until there is enough, something that others wait for, or the time has come.
async fn gather<T>(
    ended: &mut mpsc::Receiver<T>,
    gathered: &mut Vec<T>,
    enough: usize,
    until: Instant,
    holds_up: impl Fn(&T) -> bool,
) {
    let mut seen = 0;
    while !gathered.is_empty()
        && gathered.len() < enough
        && !gathered[seen..].iter().any(&holds_up)
        && Instant::now() < until
    {
        seen = gathered.len();
        tokio::select! {
            received = ended.recv_many(gathered, BATCH - seen) => {
                if received == 0 {
                    return;
                }
            }
            () = sleep_until(until) => return,
        }
    }
}

impl Recorder {
    /// When a part that failed is to be tried again.
    fn retry_at(&self) -> Option<Instant> {
        self.failing.values().map(|part| part.retry_at).min()
    }

    /// Writes what ended, and what waited for its time.
    async fn turn(&mut self, ended: impl Iterator<Item = Ended>) {
        let mut batches: BTreeMap<usize, Batch> = BTreeMap::new();
        for ended in ended {
            let part = self.store.part_of(ended.ending.tenant());
            batches.entry(part).or_default().add(ended);
        }
        let now = Instant::now();
        for (part, failing) in &mut self.failing {
            if let Some(new) = batches.remove(part) {
                failing.waiting.append(new);
            }
            if failing.retry_at <= now {
                batches.insert(*part, failing.waiting.next());
            }
        }
        let mut writing: FuturesUnordered<_> = batches
            .into_iter()
            .map(|(part, batch)| {
                let store = Arc::clone(&self.store);
                async move {
                    let outcome = write(&*store, &batch).await;
                    (part, batch, outcome)
                }
            })
            .collect();
        while let Some((part, batch, outcome)) = writing.next().await {
            match outcome {
                Ok(()) => {
                    drop(batch);
                    self.succeeded(part);
                }
                Err(error) => self.failed(part, batch, &error),
            }
        }
        self.free_places();
    }

    fn succeeded(&mut self, part: usize) {
        if let Some(failing) = self.failing.get_mut(&part) {
            failing.backoff.succeeded();
            if failing.waiting.len() == 0 {
                self.failing.remove(&part);
            }
        }
    }

    /// Repeating is safe: what was written before the answer was lost has given up its lease.
    fn failed(&mut self, part: usize, batch: Batch, error: &StoreError) {
        let failing = self.failing.entry(part).or_insert_with(|| Failing {
            waiting: Batch::default(),
            backoff: Backoff::new("record attempts"),
            retry_at: Instant::now(),
        });
        failing.waiting.append(batch);
        failing.retry_at = Instant::now() + failing.backoff.wait_after(error);
    }

    /// Lets deliveries of other parts have the places of what waits. Nothing is leased of a part that fails,
    /// so it is no more, as a rule, than was in flight there; it is bounded all the same.
    fn free_places(&mut self) {
        let holds = |batch: &Batch| batch.len() - batch.permits.len();
        let without: usize = self.failing.values().map(|part| holds(&part.waiting)).sum();
        let mut free = self.places.saturating_sub(without);
        for failing in self.failing.values_mut() {
            let permits = &mut failing.waiting.permits;
            let gone = permits.len().min(free);
            if gone > 0 {
                permits.truncate(permits.len() - gone);
                free -= gone;
            }
        }
    }

    /// Goes on with what still waits until `deadline`, and for one try at least: an outcome that is not
    /// written is delivered again once its lease has ended, so it pays to wait for a store that is away for
    /// a moment.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        while let Some(retry_at) = self.retry_at() {
            let last = retry_at >= deadline;
            if last {
                for failing in self.failing.values_mut() {
                    failing.retry_at = Instant::now();
                }
            } else {
                sleep_until(retry_at).await;
            }
            let before = self.waiting();
            self.turn(std::iter::empty()).await;
            // What a store takes, late as it is, it is given to the end.
            if last && self.waiting() >= before {
                break;
            }
        }
        let attempts = self.waiting();
        if attempts > 0 {
            tracing::error!(
                attempts,
                "stopping without recording; the leases will expire and the attempts be repeated"
            );
        }
    }

    /// How much is still to be written.
    fn waiting(&self) -> usize {
        let parts = self.failing.values();
        parts.map(|failing| failing.waiting.len()).sum()
    }
}

async fn write(store: &dyn Store, batch: &Batch) -> Result<(), StoreError> {
    if !batch.releases.is_empty() {
        store.release(&batch.releases).await?;
    }
    if batch.outcomes.is_empty() {
        return Ok(());
    }
    let recorded = store.record(&batch.outcomes).await?;
    for (outcome, recorded) in batch.outcomes.iter().zip(recorded) {
        if recorded == Recorded::LeaseLost {
            metrics::counter!(metric::LEASES_LOST).increment(1);
            tracing::warn!(
                tenant = %outcome.delivery.tenant_id, delivery = %outcome.delivery.id,
                "the lease was lost before the attempt was recorded; nothing was written"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(3600);

    async fn gathered(
        sent: &[u32],
        enough: usize,
        wait: Duration,
        holds_up: impl Fn(&u32) -> bool,
    ) -> Vec<u32> {
        let (sender, mut ended) = mpsc::channel(64);
        for one in sent {
            sender.send(*one).await.expect("the channel is open");
        }
        let mut gathered = Vec::new();
        ended.recv_many(&mut gathered, 1).await;
        gather(
            &mut ended,
            &mut gathered,
            enough,
            Instant::now() + wait,
            holds_up,
        )
        .await;
        gathered
    }

    #[tokio::test]
    async fn gathers_until_there_is_enough() {
        let all = gathered(&[1, 2, 3], 3, LONG, |_| false).await;
        assert_eq!(all, [1, 2, 3]);
    }

    #[tokio::test]
    async fn gathers_no_longer_than_until_its_time() {
        let all = gathered(&[1], 3, Duration::from_millis(20), |_| false).await;
        assert_eq!(all, [1]);
        let at_once = gathered(&[1, 2], 3, Duration::ZERO, |_| false).await;
        assert_eq!(at_once, [1]);
    }

    #[tokio::test]
    async fn gathers_nothing_after_what_a_sequence_waits_for() {
        let first = gathered(&[7, 2], 3, LONG, |one| *one == 7).await;
        assert_eq!(first, [7]);
        let second = gathered(&[1, 7], 3, LONG, |one| *one == 7).await;
        assert_eq!(second, [1, 7]);
    }

    #[tokio::test]
    async fn gathers_no_longer_once_nothing_more_can_come() {
        let (sender, mut ended) = mpsc::channel::<u32>(1);
        drop(sender);
        let mut gathered = vec![1];
        gather(&mut ended, &mut gathered, 3, Instant::now() + LONG, |_| {
            false
        })
        .await;
        assert_eq!(gathered, [1]);
    }
}
