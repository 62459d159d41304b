//! The reference: what a store promises, in the plainest form.
//!
//! A store answers a call somewhere within the call's [`Window`], so near the end of a lease two
//! answers may be right. The reference then takes the one it is given; everything else it demands.

mod decision;
mod enqueue;
mod lease;
mod outcome;
mod retention;
mod sequence;

use std::collections::BTreeMap;

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, EndpointId, Event, EventId, Sequence, TenantId,
};
use wasmhook_store::LeaseToken;

use crate::window::Window;

/// Right, or which promise was broken.
pub(crate) type Verdict = Result<(), String>;

macro_rules! promise {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use promise;

/// A delivery's name: ids are unique within a tenant only.
pub(crate) type Key = (TenantId, DeliveryId);

/// Everything that a store should know.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) deliveries: BTreeMap<Key, Known>,
    pub(crate) events: BTreeMap<(TenantId, EventId), Story>,
    /// Counts calls, so that it is known what came first.
    calls: u64,
    /// The fewest in flight that one endpoint was limited to so far. A lane that was full under a
    /// lower limit need not be looked at again before one of its leases ends.
    lowest_cap: Option<usize>,
    /// How many attempts at an endpoint stalled so far.
    stalled: BTreeMap<(TenantId, EndpointId), usize>,
    /// The most that tenants may have in flight, of those that have such a quota.
    pub(crate) caps: BTreeMap<TenantId, usize>,
}

/// What is known of an event.
pub(crate) struct Story {
    /// What it may contain: one version, unless it had no deliveries at first.
    pub(crate) versions: Vec<Event>,
    /// It has no deliveries, so a store may have forgotten it.
    pub(crate) bare: bool,
}

/// A delivery.
pub(crate) struct Known {
    pub(crate) event: EventId,
    pub(crate) endpoint: EndpointId,
    /// Which call made it, and its place in the call: lists are in the opposite order.
    pub(crate) born: (u64, usize),
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) replayed_at_attempt: u32,
    /// When the host said that the next attempt is due, after one that failed, or the first.
    pub(crate) next_at: Option<Timestamp>,
    /// When it was to be due when it was made, if that was to be later.
    scheduled: Option<Timestamp>,
    /// The sequence that it is in, if any.
    pub(crate) sequence: Option<Sequence>,
    pub(crate) place: Place,
}

/// Where a delivery is, with what matters there.
pub(crate) enum Place {
    /// To be leased once it is due.
    Waiting { state: DeliveryState, due: Window },
    /// Held by whoever has the token; back in `back` when the lease ends. It is put back by the
    /// next call that leases, and until then the holder may still record.
    Leased {
        back: DeliveryState,
        token: LeaseToken,
        ends: Window,
    },
    /// Waiting for its turn in its sequence, as pending.
    Behind,
    /// A dead letter that its sequence waits for.
    Blocking,
    /// Succeeded or dead letter, by the call of this number.
    Finished {
        state: DeliveryState,
        at: Window,
        call: u64,
    },
}

impl Known {
    /// Whether a call at `now` may find that the lease has ended.
    pub(crate) fn may_have_ended(&self, now: Window) -> bool {
        matches!(&self.place, Place::Leased { ends, .. } if ends.maybe_before(now))
    }

    fn surely_ended(&self, now: Window) -> bool {
        matches!(&self.place, Place::Leased { ends, .. } if ends.surely_before(now))
    }

    /// Whether a call at `now` finds it due, unless its endpoint has too many in flight.
    pub(crate) fn surely_available(&self, now: Window) -> bool {
        match &self.place {
            Place::Waiting { due, .. } => due.surely_before(now),
            Place::Leased { .. } => self.surely_ended(now),
            Place::Behind | Place::Blocking | Place::Finished { .. } => false,
        }
    }

    fn is_held_with(&self, held: &LeaseToken) -> bool {
        matches!(&self.place, Place::Leased { token, .. } if token == held)
    }

    /// The number of attempts so far.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }
}

pub(crate) fn key(delivery: &Delivery) -> Key {
    (delivery.tenant_id.clone(), delivery.id.clone())
}

/// What does not depend on the state.
pub(crate) fn check_facts(
    key: &Key,
    known: &Known,
    delivery: &Delivery,
    attempts: &[Attempt],
) -> Verdict {
    promise!(
        (&delivery.event_id, &delivery.endpoint_id) == (&known.event, &known.endpoint),
        "{key:?} is of another event or endpoint than was pushed"
    );
    promise!(
        delivery.sequence == known.sequence,
        "{key:?} is in sequence {:?}, not {:?}",
        delivery.sequence,
        known.sequence
    );
    promise!(
        delivery.attempt == known.attempt(),
        "{key:?} has {} attempts, not {}",
        delivery.attempt,
        known.attempt()
    );
    promise!(
        delivery.replayed_at_attempt == known.replayed_at_attempt,
        "{key:?} counts retries from {}, not {}",
        delivery.replayed_at_attempt,
        known.replayed_at_attempt
    );
    promise!(
        attempts == known.attempts,
        "{key:?} has other attempts than were recorded"
    );
    promise!(
        known.next_at.is_none_or(|at| at == delivery.next_at),
        "{key:?} is due at {}, not at {:?}",
        delivery.next_at,
        known.next_at
    );
    Ok(())
}

/// Due at a time that a host said, in a call that may have come before or after it.
fn due_at(call: Window, at: Timestamp) -> Window {
    let at = Window::at(at);
    Window {
        from: at.from.max(call.from),
        to: at.to.max(call.to),
    }
}
