//! Deliveries that this host enqueued and nobody has leased yet.
//!
//! A host mostly leases what it has just enqueued itself, so it keeps that at hand: leasing then
//! moves ids and no payloads. A delivery is known by its lane and creation stamp, which no other of its
//! shard ever has, and only the first lease of it may take it from here: what comes after may have been
//! changed by others. What is not here is read from the server like everything else.
//!
//! A lane is served in the order of its stamps. So what lies before a delivery that is taken was leased by
//! another host, and is dropped: hosts that share the work would fill their memory with each other's otherwise.
//!
//! A lease for new work may give what was enqueued a moment ago, and both answers come together. Who has that
//! of the lease waits until the other's is worked up.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wasmhook_core::{Delivery, EndpointId, Event, TenantId};

/// How much is kept, in bytes of payload and estimated overhead.
const MOST: usize = 64 << 20;
/// What a delivery takes besides its payload.
const OVERHEAD: usize = 512;
/// The longest that is waited for an answer that is here already to be worked up.
const WORKED_UP: Duration = Duration::from_millis(5);

struct Waiting {
    stamp: u64,
    delivery: Delivery,
    event: Event,
}

impl Waiting {
    fn size(&self) -> usize {
        OVERHEAD + self.event.payload.len()
    }
}

/// What was kept in one period, in the order of stamps for each lane.
#[derive(Default)]
struct Period {
    lanes: HashMap<TenantId, HashMap<EndpointId, VecDeque<Waiting>>>,
    size: usize,
}

impl Period {
    fn keep(&mut self, waiting: Waiting) {
        self.size += waiting.size();
        let (tenant, endpoint) = (&waiting.delivery.tenant_id, &waiting.delivery.endpoint_id);
        if let Some(lane) = self
            .lanes
            .get_mut(tenant)
            .and_then(|lanes| lanes.get_mut(endpoint))
        {
            // Two calls' answers may be worked up in either order.
            let place = match lane.back() {
                Some(last) if last.stamp > waiting.stamp => {
                    lane.partition_point(|other| other.stamp < waiting.stamp)
                }
                _ => lane.len(),
            };
            lane.insert(place, waiting);
        } else {
            let lanes = self.lanes.entry(tenant.clone()).or_default();
            let endpoint = endpoint.clone();
            // Most tenants have one at a time.
            let mut lane = VecDeque::with_capacity(1);
            lane.push_back(waiting);
            lanes.insert(endpoint, lane);
        }
    }

    /// Takes a delivery, and drops what lies before it in its lane.
    fn take(&mut self, tenant: &TenantId, endpoint: &EndpointId, stamp: u64) -> Option<Waiting> {
        let lanes = self.lanes.get_mut(tenant)?;
        let lane = lanes.get_mut(endpoint)?;
        let mut taken = None;
        while let Some(first) = lane.pop_front_if(|first| first.stamp <= stamp) {
            self.size -= first.size();
            taken = (first.stamp == stamp).then_some(first);
        }
        if lane.is_empty() {
            lanes.remove(endpoint);
            if lanes.is_empty() {
                self.lanes.remove(tenant);
            }
        }
        taken
    }
}

/// What is kept, in two periods: when the younger has half of what may be kept, the older is dropped.
#[derive(Default)]
struct Kept {
    young: Period,
    old: Period,
}

/// What this host enqueued and need not read.
pub(super) struct Fresh {
    kept: Mutex<Kept>,
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
            kept: Mutex::default(),
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

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps deliveries as they were enqueued, with their stamps.
    pub(super) fn keep(&self, event: &Event, deliveries: impl Iterator<Item = (u64, Delivery)>) {
        let mut kept = self.kept();
        for (stamp, delivery) in deliveries {
            kept.young.keep(Waiting {
                stamp,
                delivery,
                event: event.clone(),
            });
        }
        if kept.young.size > MOST / 2 {
            let young = mem::take(&mut kept.young);
            let dropped = mem::replace(&mut kept.old, young);
            // Not while others wait for the lock.
            drop(kept);
            drop(dropped);
        }
    }

    /// Takes a delivery at its first lease.
    pub(super) fn take(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        stamp: u64,
    ) -> Option<(Delivery, Event)> {
        let mut kept = self.kept();
        let old = kept.old.take(tenant, endpoint, stamp);
        let waiting = old.or_else(|| kept.young.take(tenant, endpoint, stamp))?;
        Some((waiting.delivery, waiting.event))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use wasmhook_core::{EventDraft, delivery};

    use super::*;

    fn event(tenant: &str, payload: usize) -> Event {
        let draft = EventDraft {
            id: "event".to_owned(),
            tenant: tenant.to_owned(),
            event_type: "order.created".to_owned(),
            payload: format!("\"{}\"", "x".repeat(payload)).into(),
            ..EventDraft::default()
        };
        draft.accept(Timestamp::UNIX_EPOCH, usize::MAX).unwrap()
    }

    /// Keeps a delivery for each stamp.
    fn keep(fresh: &Fresh, event: &Event, endpoint: &str, stamps: &[u64]) {
        let endpoint = EndpointId::new(endpoint).unwrap();
        let id = delivery::default_id(&event.tenant_id, &event.id, &endpoint);
        let delivery = Delivery::pending(id, event, endpoint, None, Timestamp::UNIX_EPOCH);
        let deliveries = stamps.iter().map(|stamp| (*stamp, delivery.clone()));
        fresh.keep(event, deliveries);
    }

    fn takes(fresh: &Fresh, event: &Event, endpoint: &str, stamp: u64) -> bool {
        let endpoint = EndpointId::new(endpoint).unwrap();
        fresh.take(&event.tenant_id, &endpoint, stamp).is_some()
    }

    fn is_empty(fresh: &Fresh) -> bool {
        let kept = fresh.kept();
        let of = |period: &Period| period.lanes.is_empty() && period.size == 0;
        of(&kept.young) && of(&kept.old)
    }

    #[test]
    fn a_delivery_is_taken_once_whatever_the_order_of_keeping() {
        let (fresh, event) = (Fresh::new(1), event("acme", 10));
        keep(&fresh, &event, "crm", &[3, 4]);
        keep(&fresh, &event, "crm", &[1, 2]);
        for stamp in 1..=4 {
            assert!(takes(&fresh, &event, "crm", stamp), "{stamp}");
            assert!(!takes(&fresh, &event, "crm", stamp), "{stamp}");
        }
        assert!(is_empty(&fresh));
    }

    #[test]
    fn what_others_leased_before_is_dropped_in_its_lane_only() {
        let (fresh, event) = (Fresh::new(1), event("acme", 10));
        keep(&fresh, &event, "crm", &[1, 2, 3, 5]);
        keep(&fresh, &event, "audit", &[4]);
        // Of what was leased nothing need be here.
        assert!(!takes(&fresh, &event, "crm", 2 + 2));
        assert!(!takes(&fresh, &event, "crm", 3));
        assert!(takes(&fresh, &event, "audit", 4));
        assert!(takes(&fresh, &event, "crm", 5));
        assert!(is_empty(&fresh));
    }

    #[test]
    fn the_oldest_is_dropped_when_there_is_too_much() {
        let fresh = Fresh::new(1);
        let event = event("acme", MOST / 8);
        for stamp in 1..=40 {
            keep(&fresh, &event, &format!("endpoint-{stamp}"), &[stamp]);
            let kept = fresh.kept();
            assert!(kept.young.size + kept.old.size <= MOST + MOST / 4);
        }
        let taken = |stamp: &u64| takes(&fresh, &event, &format!("endpoint-{stamp}"), *stamp);
        let taken: Vec<u64> = (1..=40).filter(taken).collect();
        assert_eq!(taken.last(), Some(&40));
        assert!((4..9).contains(&taken.len()), "{taken:?}");
        assert!(is_empty(&fresh));
    }
}
