//! What a site's producers were told and what its receiver got: the two ends that must agree.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use jiff::Timestamp;

use crate::workload::{Id, Pushed};

/// How often a receiver got a delivery.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrivals {
    /// How often it accepted it.
    pub(crate) accepted: u16,
    /// How often it refused it.
    pub(crate) refused: u16,
    /// When it came first.
    pub(crate) first: Duration,
    /// The same by the clock that records go by.
    pub(crate) first_at: Timestamp,
    /// When it was first accepted, or refused for good; `None` if it never was.
    pub(crate) ended: Option<Duration>,
    /// How often the receiver closed the connection when it had accepted it and not said so.
    pub(crate) cut: u16,
}

/// A delivery that was accepted again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again {
    pub(crate) id: Id,
    /// When it was accepted the time before. What kept that from being recorded happened then.
    pub(crate) before: Duration,
}

#[derive(Default)]
struct Arrived {
    all: HashMap<Id, (Arrivals, Duration)>,
    again: Vec<Again>,
}

/// Shared by a site's producers and its receiver.
pub(crate) struct Ledger {
    start: Instant,
    acknowledged: Vec<AtomicBool>,
    acknowledgements: AtomicU32,
    accepted: AtomicU32,
    arrived: Mutex<Arrived>,
}

impl Ledger {
    pub(crate) fn new(events: u32) -> Self {
        Self {
            start: Instant::now(),
            acknowledged: (0..events).map(|_| AtomicBool::new(false)).collect(),
            acknowledgements: AtomicU32::new(0),
            accepted: AtomicU32::new(0),
            arrived: Mutex::default(),
        }
    }

    /// How many events are pushed.
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// How long ago it all began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A producer was told that the event is durable.
    pub(crate) fn acknowledge(&self, event: Pushed) {
        if !self.acknowledged[event.0 as usize].swap(true, Ordering::SeqCst) {
            self.acknowledgements.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// All events, and whether each was acknowledged.
    pub(crate) fn events(&self) -> impl Iterator<Item = (Pushed, bool)> {
        (0..).map(Pushed).zip(
            self.acknowledged
                .iter()
                .map(|flag| flag.load(Ordering::SeqCst)),
        )
    }

    /// How many events were acknowledged.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledgements.load(Ordering::SeqCst)
    }

    /// Whether nothing is left to push.
    pub(crate) fn is_all_acknowledged(&self) -> bool {
        self.acknowledged() as usize == self.len()
    }

    /// How many deliveries the receiver accepted, each as often as it did.
    pub(crate) fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Whether the delivery arrived before.
    pub(crate) fn has_arrived(&self, id: Id) -> bool {
        self.lock().all.contains_key(&id)
    }

    /// A delivery arrived and is answered with this status.
    pub(crate) fn arrive(&self, id: Id, status: StatusCode) {
        let accepted = status.is_success();
        let now = self.now();
        let mut arrived = self.lock();
        let arrived = &mut *arrived;
        let (arrivals, last) = arrived.all.entry(id).or_default();
        if arrivals.accepted + arrivals.refused == 0 {
            arrivals.first = now;
            arrivals.first_at = Timestamp::now();
        }
        if accepted || status == StatusCode::GONE {
            arrivals.ended.get_or_insert(now);
        }
        if accepted {
            if arrivals.accepted > 0 {
                arrived.again.push(Again { id, before: *last });
            }
            arrivals.accepted = arrivals.accepted.saturating_add(1);
            *last = now;
            self.accepted.fetch_add(1, Ordering::SeqCst);
        } else {
            arrivals.refused = arrivals.refused.saturating_add(1);
        }
    }

    /// The receiver closed the connection before it answered what it had accepted.
    pub(crate) fn cut(&self, id: Id) {
        if let Some((arrivals, _)) = self.lock().all.get_mut(&id) {
            arrivals.cut = arrivals.cut.saturating_add(1);
        }
    }

    /// How often a delivery arrived.
    pub(crate) fn arrivals(&self, id: Id) -> Arrivals {
        self.lock()
            .all
            .get(&id)
            .map_or_else(Arrivals::default, |(arrivals, _)| *arrivals)
    }

    /// The deliveries that were accepted more than once, once for each time too many.
    pub(crate) fn again(&self) -> Vec<Again> {
        self.lock().again.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
