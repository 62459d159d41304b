//! The worker: leases due deliveries, has them attempted, and hands the outcomes to the recorder.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmhook_store::{LeaseRequest, Leased, NewWork, Outcome, Store};

use crate::attempt::Attempter;
use crate::backoff::Backoff;
use crate::pace::{Company, Pace, Starts};
use crate::recorder::{self, Ended, Ending};

/// One part in so many of the places is kept for tenants that had nothing to do before: they find a place at
/// once while others fill the host, and a host loses little by it.
const KEPT_SHARE: usize = 8;

/// Settings of the worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Deliveries in flight on this host.
    pub concurrency: usize,
    /// Deliveries in flight for one endpoint, over all hosts.
    pub max_per_endpoint: usize,
    /// Deliveries leased in one call.
    pub batch: usize,
    /// How long a lease lasts; longer than an attempt may take.
    pub lease: Duration,
    /// How long the worker waits before it asks again although nothing woke it. Bounds the harm of a
    /// lost wake-up.
    pub idle: Duration,
    /// How long to let attempts finish after a stop, before they are given back, and to wait for a store
    /// that is away to record those that did.
    pub grace: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            concurrency: 1024,
            max_per_endpoint: 512,
            batch: 128,
            lease: Duration::from_secs(60),
            idle: Duration::from_secs(5),
            grace: Duration::from_secs(20),
        }
    }
}

/// Works deliveries off until it is told to stop.
pub struct Worker {
    config: WorkerConfig,
    store: Arc<dyn Store>,
    attempter: Arc<Attempter>,
}

impl Worker {
    /// Takes work from `store`.
    pub fn new(config: WorkerConfig, store: Arc<dyn Store>, attempter: Arc<Attempter>) -> Self {
        Self {
            config,
            store,
            attempter,
        }
    }

    /// Runs until `stop`; then lets what is in flight finish for the configured grace, gives the
    /// rest back, and returns once everything is recorded, or at the end of the grace if the store
    /// is away.
    pub async fn run(self, stop: CancellationToken) {
        let (ended, endings) = mpsc::channel(self.config.concurrency.max(1));
        let recorder = tokio::spawn(recorder::run(Arc::clone(&self.store), endings));
        let grace = self.config.grace;
        let running = Running {
            worker: self,
            ended,
            attempts: TaskTracker::new(),
            starts: Starts::default(),
            give_back: CancellationToken::new(),
            stop,
        };
        running.serve().await;
        let deadline = Instant::now() + grace;
        let Running {
            attempts,
            give_back,
            ended,
            ..
        } = running;
        attempts.close();
        drop(ended);
        if tokio::time::timeout_at(deadline, attempts.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                in_flight = attempts.len(),
                "giving back what did not finish in time"
            );
            give_back.cancel();
            attempts.wait().await;
        }
        match recorder.await {
            Ok(recorder) => recorder.finish(deadline).await,
            Err(_) => {
                tracing::error!("the recorder failed; leases that were not recorded will expire");
            }
        }
    }
}

/// A worker at work.
struct Running {
    worker: Worker,
    ended: mpsc::Sender<Ended>,
    attempts: TaskTracker,
    starts: Starts,
    give_back: CancellationToken,
    stop: CancellationToken,
}

impl Running {
    /// Leases and has attempted until it is to stop.
    async fn serve(&self) {
        let (places, kept) = parted(self.worker.config.concurrency);
        let new_work = self.worker.store.new_work();
        let company = Company::default();
        tokio::join!(
            self.serve_all(&places, new_work, &company),
            self.serve_new(&places, &kept, new_work, &company)
        );
    }

    /// Serves whatever is due.
    async fn serve_all(&self, places: &Arc<Semaphore>, new_work: &dyn NewWork, company: &Company) {
        let mut backoff = Backoff::new("lease deliveries");
        let mut pace = Pace::new(&self.starts);
        let mut served = None;
        while !self.stop.is_cancelled() {
            let mut permits = tokio::select! {
                permits = free(places, self.worker.config.batch) => permits,
                () = self.stop.cancelled() => break,
            };
            let turn = served
                .as_ref()
                .and_then(|tenant| pace.turn(tenant, company));
            permits.truncate(turn.unwrap_or(usize::MAX));
            let asked = permits.len();
            match self.worker.store.lease(&self.request(asked)).await {
                Ok(batch) => {
                    backoff.succeeded();
                    let got = batch.leased.len();
                    // What is not needed is others' at once, and not only when all of these are started.
                    permits.truncate(got);
                    let last = batch.leased.last();
                    served = last.map(|leased| leased.delivery.tenant_id.clone());
                    let work = batch.leased.into_iter().zip(permits);
                    pace.spread(work, |(leased, place)| self.start_one(leased, place))
                        .await;
                    if got < asked {
                        let longest = self.worker.config.idle;
                        let idle = batch.next_due.unwrap_or(longest).min(longest);
                        self.idle(idle, new_work).await;
                    } else if turn.is_some() {
                        pace.rest().await;
                    }
                }
                Err(error) => {
                    drop(permits);
                    tokio::select! {
                        () = backoff.failed(&error) => {}
                        () = self.stop.cancelled() => break,
                    }
                }
            }
        }
    }

    /// Serves tenants that had nothing to do before, also in the places that are kept for them.
    async fn serve_new(
        &self,
        places: &Arc<Semaphore>,
        kept: &Arc<Semaphore>,
        new_work: &dyn NewWork,
        company: &Company,
    ) {
        let (batch, idle) = (self.worker.config.batch, self.worker.config.idle);
        let few = kept.available_permits().div_ceil(KEPT_SHARE);
        // Of the kept ones nobody gets many: they are for all who come with little.
        let light = |among_kept: bool| {
            if among_kept {
                few
            } else {
                self.worker.config.max_per_endpoint
            }
        };
        while !self.stop.is_cancelled() {
            let offered: Vec<_> = free_now(kept, batch).collect();
            let request = self.request(offered.len());
            let among_kept = places.available_permits() < offered.len();
            let waiting = new_work.wait(&request, light(among_kept), idle);
            tokio::pin!(waiting);
            let brought = tokio::select! {
                brought = &mut waiting => brought,
                () = self.stop.cancelled() => {
                    new_work.interrupt();
                    waiting.await
                }
            };
            if !brought.is_empty() {
                company.note(&brought);
                let others = free_now(places, brought.len());
                self.start(brought, others.chain(offered));
                continue;
            }
            drop(offered);
            let (permits, among_kept) = tokio::select! {
                ready = free_of_either(places, kept, batch) => ready,
                () = self.stop.cancelled() => break,
            };
            let request = self.request(permits.len());
            let leased = new_work.lease(&request, light(among_kept)).await;
            company.note(&leased);
            self.start(leased, permits);
        }
    }

    fn request(&self, max: usize) -> LeaseRequest {
        LeaseRequest {
            max,
            duration: self.worker.config.lease,
            max_per_endpoint: self.worker.config.max_per_endpoint,
        }
    }

    /// Waits for due work, of which the store says too when an outcome freed something.
    async fn idle(&self, wait: Duration, new_work: &dyn NewWork) {
        tokio::select! {
            () = new_work.wait_for_rest(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Has deliveries attempted, each in a place of its own.
    fn start(&self, leased: Vec<Leased>, places: impl IntoIterator<Item = OwnedSemaphorePermit>) {
        for (leased, place) in leased.into_iter().zip(places) {
            self.start_one(leased, place);
        }
    }

    fn start_one(&self, leased: Leased, place: OwnedSemaphorePermit) {
        self.starts.note();
        self.attempts.spawn(self.attempt(leased, place));
    }

    fn attempt(
        &self,
        mut leased: Leased,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + use<> {
        let attempter = Arc::clone(&self.worker.attempter);
        let (ended, give_back) = (self.ended.clone(), self.give_back.clone());
        async move {
            let made = tokio::select! {
                made = attempter.attempt(&mut leased) => Some(made),
                () = give_back.cancelled() => None,
            };
            let ending = match made {
                Some((delivery, attempt)) => Ending::Attempted(Box::new(Outcome {
                    leased,
                    delivery,
                    attempt,
                })),
                None => Ending::Released(Box::new(leased)),
            };
            // Fails only when the recorder is gone, and then the lease expires by itself.
            let _ = ended.send(Ended { ending, permit }).await;
        }
    }
}

/// The places of a host, for all and kept for new work; of a single one none is kept.
fn parted(concurrency: usize) -> (Arc<Semaphore>, Arc<Semaphore>) {
    let concurrency = concurrency.max(1);
    let kept = (concurrency / KEPT_SHARE).max(1).min(concurrency - 1);
    let places = |count| Arc::new(Semaphore::new(count));
    (places(concurrency - kept), places(kept))
}

/// Waits for at least one free place, then takes up to so many.
async fn free(places: &Arc<Semaphore>, most: usize) -> Vec<OwnedSemaphorePermit> {
    let Ok(first) = Arc::clone(places).acquire_owned().await else {
        return Vec::new();
    };
    let mut permits = vec![first];
    permits.extend(free_now(places, most.saturating_sub(1)));
    permits
}

/// Takes up to so many of the places that are free now.
fn free_now(places: &Arc<Semaphore>, most: usize) -> impl Iterator<Item = OwnedSemaphorePermit> {
    std::iter::from_fn(|| Arc::clone(places).try_acquire_owned().ok()).take(most)
}

/// Waits for at least one free place, one of the kept ones only while there is no other, and says whether it is
/// one of those. Either may be held for long by slow receivers, so whichever is free first will do.
async fn free_of_either(
    places: &Arc<Semaphore>,
    kept: &Arc<Semaphore>,
    most: usize,
) -> (Vec<OwnedSemaphorePermit>, bool) {
    tokio::select! {
        biased;
        permits = free(places, most) => (permits, false),
        permits = free(kept, most) => (permits, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(count))
    }

    #[test]
    fn a_host_has_as_many_places_as_it_may_have_and_one_at_least_for_all() {
        for (concurrency, kept) in [(0, 0), (1, 0), (2, 1), (8, 1), (9, 1), (1024, 128)] {
            let parted = parted(concurrency);
            let counts = (parted.0.available_permits(), parted.1.available_permits());
            assert_eq!(counts, (concurrency.max(1) - kept, kept));
        }
    }

    #[tokio::test]
    async fn kept_places_are_taken_only_while_there_is_no_other() {
        let (others, kept) = (places(3), places(2));
        let (held, among_kept) = free_of_either(&others, &kept, 8).await;
        assert_eq!((held.len(), among_kept), (3, false));
        let (more, among_kept) = free_of_either(&others, &kept, 8).await;
        assert_eq!((more.len(), among_kept), (2, true));
    }

    #[tokio::test]
    async fn who_waits_for_a_kept_place_takes_another_that_is_free_first() {
        let (others, kept) = (places(0), places(0));
        let waiting = {
            let (others, kept) = (Arc::clone(&others), Arc::clone(&kept));
            tokio::spawn(async move { free_of_either(&others, &kept, 8).await })
        };
        tokio::task::yield_now().await;
        others.add_permits(1);
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        let (permits, among_kept) = waited.unwrap().unwrap();
        assert_eq!((permits.len(), among_kept), (1, false));
    }
}
