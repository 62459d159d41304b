//! The worker: leases due deliveries, has them attempted, and hands the outcomes to the recorder.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmhook_store::{LeaseRequest, Leased, Outcome, Store, StoreError};

use crate::attempt::Attempter;
use crate::backoff::Backoff;
use crate::recorder::{self, Ended, Ending};

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
    /// How long to let attempts finish after a stop, before they are given back.
    pub grace: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            concurrency: 512,
            max_per_endpoint: 128,
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
    /// rest back, and returns once everything is recorded.
    pub async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.config.concurrency));
        let (ended, endings) = mpsc::channel(self.config.concurrency.max(1));
        let written = Arc::new(Notify::new());
        let recorder = tokio::spawn(recorder::run(
            Arc::clone(&self.store),
            endings,
            Arc::clone(&written),
        ));
        let attempts = TaskTracker::new();
        let give_back = CancellationToken::new();
        let mut backoff = Backoff::new("lease deliveries");
        while !stop.is_cancelled() {
            let permits = tokio::select! {
                permits = self.free_places(&places) => permits,
                () = stop.cancelled() => break,
            };
            let asked = permits.len();
            match self.lease(asked).await {
                Ok(batch) => {
                    backoff.succeeded();
                    let got = batch.leased.len();
                    for (leased, permit) in batch.leased.into_iter().zip(permits) {
                        attempts.spawn(self.attempt(
                            leased,
                            permit,
                            ended.clone(),
                            give_back.clone(),
                        ));
                    }
                    if got < asked {
                        let idle = batch
                            .next_due
                            .unwrap_or(self.config.idle)
                            .min(self.config.idle);
                        self.idle(idle, &written, &stop).await;
                    }
                }
                Err(error) => {
                    drop(permits);
                    tokio::select! {
                        () = backoff.failed(&error) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        attempts.close();
        drop(ended);
        if tokio::time::timeout(self.config.grace, attempts.wait())
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
        if recorder.await.is_err() {
            tracing::error!("the recorder failed; leases that were not recorded will expire");
        }
    }

    /// Waits for at least one free place, then takes up to a batch of them.
    async fn free_places(&self, places: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
        let mut permits = Vec::new();
        if let Ok(first) = Arc::clone(places).acquire_owned().await {
            permits.push(first);
        }
        while permits.len() < self.config.batch {
            match Arc::clone(places).try_acquire_owned() {
                Ok(permit) => permits.push(permit),
                Err(_) => break,
            }
        }
        permits
    }

    async fn lease(&self, max: usize) -> Result<wasmhook_store::Batch, StoreError> {
        let request = LeaseRequest {
            max,
            duration: self.config.lease,
            max_per_endpoint: self.config.max_per_endpoint,
        };
        self.store.lease(&request).await
    }

    /// Waits for new work, for due work, or for a recorded outcome that may have freed an endpoint.
    async fn idle(&self, wait: Duration, written: &Notify, stop: &CancellationToken) {
        tokio::select! {
            waited = self.store.wait_for_work(wait) => {
                // The store's own trouble shows, and is logged, at the next lease.
                if waited.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            () = written.notified() => {}
            () = stop.cancelled() => {}
        }
    }

    fn attempt(
        &self,
        mut leased: Leased,
        permit: OwnedSemaphorePermit,
        ended: mpsc::Sender<Ended>,
        give_back: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let attempter = Arc::clone(&self.attempter);
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
