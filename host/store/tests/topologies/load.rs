//! Work that goes on while something happens to the servers, and the count of it afterwards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasmhook_core::{DeliveryId, DeliveryState, TenantId};
use wasmhook_store::conformance::{event, large_event, succeeded, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{Leased, Store};

use crate::support::{PATIENCE, passes, request, until};

/// Tenants of the work: enough to be in every shard.
const TENANTS: usize = 16;

/// Two hosts that enqueue and deliver until told to stop.
pub(crate) struct Load {
    store: Arc<RedisStore>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<(TenantId, DeliveryId)>>>,
    recorded: Arc<Mutex<BTreeSet<DeliveryId>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts work on a store.
    pub(crate) fn start(store: RedisStore) -> Self {
        let mut load = Self {
            store: Arc::new(store),
            stop: Arc::default(),
            acknowledged: Arc::default(),
            recorded: Arc::default(),
            tasks: Vec::new(),
        };
        for producer in 0..2 {
            load.tasks.push(tokio::spawn(produce(
                producer,
                Arc::clone(&load.store),
                Arc::clone(&load.stop),
                Arc::clone(&load.acknowledged),
            )));
        }
        for _ in 0..2 {
            load.tasks.push(tokio::spawn(deliver(
                Arc::clone(&load.store),
                Arc::clone(&load.stop),
                Arc::clone(&load.recorded),
            )));
        }
        load
    }

    /// Returns once this many more events than now have been acknowledged.
    pub(crate) async fn goes_on(&self, more: usize) {
        let count = || self.acknowledged.lock().unwrap().len();
        let (before, start) = (count(), Instant::now());
        while count() < before + more {
            assert!(start.elapsed() < PATIENCE, "nothing is acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the work, lets the store run empty, and finds every acknowledged event delivered.
    pub(crate) async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let start = Instant::now();
        loop {
            let batch = until(|| async { self.store.lease(&request(100)).await }).await;
            if batch.leased.is_empty() && batch.next_due.is_none() {
                break;
            }
            record(&self.store, batch.leased, &self.recorded).await;
            assert!(start.elapsed() < PATIENCE, "the queue does not run empty");
            let wait = batch.next_due.unwrap_or_default();
            tokio::time::sleep(wait.min(Duration::from_millis(100))).await;
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        assert!(acknowledged.len() > 100, "only {}", acknowledged.len());
        let recorded = std::mem::take(&mut *self.recorded.lock().unwrap());
        for (tenant, id) in &acknowledged {
            let record = self.store.get(tenant, id).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
            assert_eq!(record.delivery.state, DeliveryState::Succeeded, "{id}");
            assert!(recorded.contains(id), "{id} succeeded without being leased");
        }
        let backlog = self.store.backlog().await.unwrap();
        assert_eq!((backlog.waiting, backlog.leased), (0, 0));
        let succeeded = usize::try_from(backlog.succeeded).unwrap();
        assert!(succeeded >= acknowledged.len(), "the counts do not agree");
    }
}

async fn produce(
    producer: usize,
    store: Arc<RedisStore>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<(TenantId, DeliveryId)>>>,
) {
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let batch: Vec<_> = (0..4)
            .map(|_| {
                n += 1;
                let tenant = format!("tenant{}", n % TENANTS);
                let id = format!("evt_{producer}_{n}");
                // One of the two pushes events that go another way to Redis for their size.
                let event = match producer {
                    0 => event(&tenant, &id),
                    _ => large_event(&tenant, &id, 1),
                };
                to(&event, &["main"])
            })
            .collect();
        // An event that was not acknowledged is pushed again until it is.
        until(|| store.enqueue(&batch)).await;
        acknowledged.lock().unwrap().extend(
            batch
                .into_iter()
                .map(|item| (item.event.tenant_id, item.deliveries[0].id.clone())),
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn deliver(
    store: Arc<RedisStore>,
    stop: Arc<AtomicBool>,
    recorded: Arc<Mutex<BTreeSet<DeliveryId>>>,
) {
    while !stop.load(Ordering::SeqCst) {
        match store.lease(&request(20)).await {
            Ok(batch) if batch.leased.is_empty() => {
                store
                    .wait_for_work(Duration::from_millis(200))
                    .await
                    .unwrap();
            }
            Ok(batch) => record(&store, batch.leased, &recorded).await,
            Err(error) => {
                assert!(passes(&error), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn record(store: &RedisStore, leased: Vec<Leased>, recorded: &Mutex<BTreeSet<DeliveryId>>) {
    if leased.is_empty() {
        return;
    }
    let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
    until(|| store.record(&outcomes)).await;
    let mut all = recorded.lock().unwrap();
    all.extend(outcomes.into_iter().map(|outcome| outcome.delivery.id));
}
