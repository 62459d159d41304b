//! Comparing what a new version would have answered.
//!
//! It runs after the call that it is compared with, on a task of its own, and only while the host has
//! much room: what finds none is left out. Of a difference nothing is kept but which parts differ.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ShadowRules;
use crate::error::{Fault, PluginError};
use crate::plugin::Plugin;
use crate::question::{OwnedEndpoint, OwnedEvent};
use crate::types::{CallResult, Digest, EndpointView, EventView, Resolution, Verdict};

/// Calls of one shadow at once.
const SLOTS: usize = 2;
/// Differences kept, the latest.
const SAMPLES: usize = 20;
/// Digits of an event's digest: enough for whoever has the event's id to find it.
const EVENT_DIGITS: usize = 16;

/// What comparing came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// Answers that were the same.
    pub equal: u64,
    /// Answers that were not.
    pub different: u64,
    /// Calls that were not compared, because the host had no room.
    pub left_out: u64,
    /// The latest differences, oldest first.
    pub samples: Vec<Difference>,
}

/// One difference between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// When it was seen.
    pub at: SystemTime,
    /// The beginning of the SHA-256 of the event's id, in hexadecimal digits.
    pub event: String,
    /// What differs: `verdict`, `body`, `content-type`, `headers`, `reason`, `mode`, `choices`.
    pub parts: Vec<&'static str>,
}

/// Compares a version with the one that serves.
pub(super) struct Shadow {
    rules: ShadowRules,
    slots: Arc<Semaphore>,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    equal: u64,
    different: u64,
    left_out: u64,
    /// Equal answers since the last difference.
    in_a_row: u64,
    samples: VecDeque<Difference>,
}

impl Shadow {
    pub(super) fn new(rules: ShadowRules) -> Self {
        Self {
            rules,
            slots: Arc::new(Semaphore::new(SLOTS)),
            tally: Mutex::default(),
        }
    }

    pub(super) fn comparisons(&self) -> Comparisons {
        let tally = self.tally();
        Comparisons {
            equal: tally.equal,
            different: tally.different,
            left_out: tally.left_out,
            samples: tally.samples.iter().cloned().collect(),
        }
    }

    pub(super) fn transform(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        event: &EventView<'_>,
        endpoint: &EndpointView<'_>,
        answer: &CallResult<Verdict>,
    ) {
        let Some(slot) = self.slot(plugin) else {
            return;
        };
        let (shadow, plugin, event) = (Arc::clone(self), Arc::clone(plugin), OwnedEvent::of(event));
        let endpoint = OwnedEndpoint::of(endpoint);
        let expected = value(answer);
        tokio::spawn(async move {
            let answer = plugin
                .transform_at_leisure(&event.view(), &endpoint.view())
                .await;
            let parts = parts(&expected, &value(&answer), differing_verdicts);
            shadow.note(&plugin, &event.id, parts);
            drop(slot);
        });
    }

    pub(super) fn resolve(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        event: &EventView<'_>,
        subscribed: &[EndpointView<'_>],
        answer: &CallResult<Resolution>,
    ) {
        let Some(slot) = self.slot(plugin) else {
            return;
        };
        let (shadow, plugin, event) = (Arc::clone(self), Arc::clone(plugin), OwnedEvent::of(event));
        let subscribed: Vec<OwnedEndpoint> = subscribed.iter().map(OwnedEndpoint::of).collect();
        let expected = value(answer);
        tokio::spawn(async move {
            let views: Vec<EndpointView<'_>> = subscribed.iter().map(OwnedEndpoint::view).collect();
            let answer = plugin.resolve_at_leisure(&event.view(), &views).await;
            let parts = parts(&expected, &value(&answer), differing_resolutions);
            shadow.note(&plugin, &event.id, parts);
            drop(slot);
        });
    }

    /// Room for one more call, while at least half of the host's is free.
    fn slot(&self, plugin: &Plugin) -> Option<OwnedSemaphorePermit> {
        let shared = &plugin.shared;
        let most = shared.config.max_concurrent_calls as usize;
        let slot = if shared.calls.available_permits() * 2 >= most {
            Arc::clone(&self.slots).try_acquire_owned().ok()
        } else {
            None
        };
        if slot.is_none() {
            self.tally().left_out += 1;
        }
        slot
    }

    /// Take down a comparison; without parts there was none.
    fn note(&self, plugin: &Plugin, event: &str, parts: Option<Vec<&'static str>>) {
        let mut tally = self.tally();
        let Some(parts) = parts else {
            tally.left_out += 1;
            return;
        };
        if parts.is_empty() {
            tally.equal += 1;
            tally.in_a_row += 1;
            if self.rules.promote_after != Some(tally.in_a_row) {
                return;
            }
            drop(tally);
            if let Some(probation) = plugin.probation.get() {
                probation.pass();
            }
            return;
        }
        tally.different += 1;
        tally.in_a_row = 0;
        if tally.samples.len() == SAMPLES {
            tally.samples.pop_front();
        }
        let mut digest = Digest::of(event.as_bytes()).to_string();
        digest.truncate(EVENT_DIGITS);
        tally.samples.push_back(Difference {
            at: SystemTime::now(),
            event: digest,
            parts,
        });
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer without what differs from call to call.
fn value<T: Clone>(answer: &CallResult<T>) -> Result<T, Fault> {
    match answer {
        Ok(call) => Ok(call.value.clone()),
        Err(PluginError { fault, .. }) => Err(fault.clone()),
    }
}

/// What differs; `None` where the host answered in a guest's place.
fn parts<T>(
    served: &Result<T, Fault>,
    shadow: &Result<T, Fault>,
    differing: impl FnOnce(&T, &T) -> Vec<&'static str>,
) -> Option<Vec<&'static str>> {
    match (served, shadow) {
        (Err(Fault::Exhausted), _) | (_, Err(Fault::Exhausted)) => None,
        (Ok(served), Ok(shadow)) => Some(differing(served, shadow)),
        (Err(served), Err(shadow)) if served.class() == shadow.class() => Some(Vec::new()),
        _ => Some(vec!["verdict"]),
    }
}

fn differing_verdicts(served: &Verdict, shadow: &Verdict) -> Vec<&'static str> {
    match (served, shadow) {
        (Verdict::Deliver(served), Verdict::Deliver(shadow)) => named([
            ("body", served.body != shadow.body),
            ("content-type", served.content_type != shadow.content_type),
            ("headers", served.headers != shadow.headers),
        ]),
        (Verdict::Skip(served), Verdict::Skip(shadow)) => named([("reason", served != shadow)]),
        _ => vec!["verdict"],
    }
}

fn differing_resolutions(served: &Resolution, shadow: &Resolution) -> Vec<&'static str> {
    named([
        ("mode", served.mode != shadow.mode),
        ("choices", served.choices != shadow.choices),
    ])
}

fn named<const N: usize>(parts: [(&'static str, bool); N]) -> Vec<&'static str> {
    let differing = parts.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| name).collect()
}
