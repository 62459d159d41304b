//! Deliveries that this host enqueued and nobody has leased yet.
//!
//! A host mostly leases what it has just enqueued itself, so it keeps that at hand: leasing then
//! moves ids and no payloads. A delivery is known by shard and creation stamp, which no other ever
//! has, and only the first lease of it may take it from here: what comes after may have been changed
//! by others. Bounded by size; what is pushed out is read from the server like everything else.

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use wasmhook_core::{Delivery, Event};

/// How much is kept, in bytes of payload and estimated overhead.
const MOST: u64 = 64 << 20;
/// What a delivery takes besides its payload.
const OVERHEAD: u64 = 512;
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
pub(super) struct Fresh(Cache<Key, Waiting, Size>);

impl Fresh {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(EXPECTED, MOST, Size))
    }

    /// Keeps a delivery as it was enqueued.
    pub(super) fn keep(&self, shard: usize, stamp: u64, delivery: Delivery, event: &Event) {
        let waiting = Waiting {
            delivery,
            event: event.clone(),
        };
        self.0.insert((shard, stamp), waiting);
    }

    /// Takes a delivery at its first lease.
    pub(super) fn take(&self, shard: usize, stamp: u64) -> Option<(Delivery, Event)> {
        let (_, waiting) = self.0.remove(&(shard, stamp))?;
        Some((waiting.delivery, waiting.event))
    }
}
