//! Which plugins keep instances for their next calls, so that a busy one can have the place of an instance
//! that nobody has asked for some time.
//!
//! Places are few beside the tenants of a large host. Without this, those that called last before the
//! places ran out would have them until their instances are too old, and everybody else none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::instance::{Idle, Metered};

/// Plugins looked at for an instance to end: enough that a busy one is seldom chosen, and few enough for
/// the way of a call.
const LOOKED_AT: usize = 8;
/// An instance that waits for less is as busy as the one that wants its place.
const BUSY: Duration = Duration::from_secs(1);

/// The plugins that keep instances, those looked at last at the end.
#[derive(Default)]
pub(crate) struct Keepers(Mutex<VecDeque<Weak<Idle>>>);

impl Keepers {
    /// Add one that keeps an instance and is not in the list.
    pub(crate) fn add(&self, idle: &Arc<Idle>) {
        let mut keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.push_back(Arc::downgrade(idle));
    }

    /// The instance that has waited longest, among those of a few plugins, if it is not a busy one. Its
    /// place is free as soon as it is dropped.
    pub(crate) fn give_up_one(&self) -> Option<Metered> {
        let mut keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut longest: Option<(Instant, Arc<Idle>)> = None;
        let mut looked_at = 0;
        while looked_at < LOOKED_AT {
            let Some(keeper) = keepers.pop_front() else {
                break;
            };
            let Some(idle) = keeper.upgrade() else {
                continue;
            };
            // Whoever keeps none is not in the list any more, and comes again when it does.
            let Some(since) = idle.waits_since() else {
                continue;
            };
            looked_at += 1;
            keepers.push_back(keeper);
            if longest.as_ref().is_none_or(|(other, _)| since < *other) {
                longest = Some((since, idle));
            }
            if looked_at == keepers.len() {
                break;
            }
        }
        let (since, idle) = longest?;
        if since.elapsed() < BUSY {
            return None;
        }
        idle.take_oldest()
    }
}
