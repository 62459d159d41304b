//! Deliveries that this host enqueued and nobody has leased yet.
//!
//! A host mostly leases what it has just enqueued itself, so it keeps that at hand: leasing then
//! moves ids and no payloads. A delivery is known by shard and creation stamp, which no other ever
//! has, and only the first lease of it may take it from here: what comes after may have been changed
//! by others. Bounded by size; what is pushed out is read from the server like everything else.
//!
//! A lease for new work may give what was enqueued a moment ago, and both answers come together. Who has that
//! of the lease waits until the other's is worked up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Notify;
use wasmhook_core::{Delivery, Event};

/// How much is kept, in bytes of payload and estimated overhead.
const MOST: u64 = 64 << 20;
/// What a delivery takes besides its payload.
const OVERHEAD: u64 = 512;
/// The longest that is waited for an answer that is here already to be worked up.
const WORKED_UP: Duration = Duration::from_millis(5);
/// Deliveries expected at a time, to size the tables.
const EXPECTED: usize = 10_000;

/// Shard and creation stamp.
type Key = (usize, u64);

#[derive(Clone)]
struct Waiting {
    delivery: Delivery,
    event: Event,
}

#[derive(Clone)]
struct Size;

impl Weighter<Key, Waiting> for Size {
    fn weight(&self, _: &Key, waiting: &Waiting) -> u64 {
        OVERHEAD + waiting.event.payload.len() as u64
    }
}

/// What this host enqueued and need not read.
pub(super) struct Fresh {
    deliveries: Cache<Key, Waiting, Size>,
    /// For each shard, how many calls enqueue something.
    announced: Vec<AtomicUsize>,
    settled: Notify,
}

/// Something that is being enqueued; dropped when it is kept.
pub(super) struct Announced<'a> {
    fresh: &'a Fresh,
    shard: usize,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.fresh.announced[self.shard].fetch_sub(1, Ordering::SeqCst);
        self.fresh.settled.notify_waiters();
    }
}

impl Fresh {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            deliveries: Cache::with_weighter(EXPECTED, MOST, Size),
            announced: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            settled: Notify::new(),
        }
    }

    /// What is being enqueued in a shard may be leased before its answer is here.
    pub(super) fn announce(&self, shard: usize) -> Announced<'_> {
        self.announced[shard].fetch_add(1, Ordering::SeqCst);
        Announced { fresh: self, shard }
    }

    /// Returns when all that was announced is kept, or after a moment.
    pub(super) async fn settle(&self, shard: usize) {
        let all = async {
            loop {
                let settled = self.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if self.announced[shard].load(Ordering::SeqCst) == 0 {
                    return;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(WORKED_UP, all).await;
    }

    /// Keeps a delivery as it was enqueued.
    pub(super) fn keep(&self, shard: usize, stamp: u64, delivery: Delivery, event: &Event) {
        let waiting = Waiting {
            delivery,
            event: event.clone(),
        };
        self.deliveries.insert((shard, stamp), waiting);
    }

    /// Takes a delivery at its first lease.
    pub(super) fn take(&self, shard: usize, stamp: u64) -> Option<(Delivery, Event)> {
        let (_, waiting) = self.deliveries.remove(&(shard, stamp))?;
        Some((waiting.delivery, waiting.event))
    }
}
