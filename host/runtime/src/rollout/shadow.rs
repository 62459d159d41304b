//! Comparing what a new version would have answered.
//!
//! It runs after the call that it is compared with, on a task of its own, and only while the host has
//! much room: what finds none is left out. Of a difference nothing is kept but which parts differ.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ShadowRules;
use crate::call::Answer;
use crate::error::{Fault, PluginError};
use crate::limits::Limits;
use crate::plugin::Plugin;
use crate::question::Question;
use crate::types::{CallResult, Digest, EventView, Exports};

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
    /// What differs: `verdict`, `body`, `content-type`, `headers`, `reason`, `mode`, `choices`, `judgement`,
    /// `signature`.
    pub parts: Vec<&'static str>,
}

/// How the answers to one kind of question are read and compared.
pub(crate) struct Answers<T> {
    /// Whether a version with these exports is asked.
    pub(crate) exported: fn(Exports) -> bool,
    /// From what the guest said.
    pub(crate) read: fn(Answer, &Limits) -> Result<T, Fault>,
    /// The parts in which two of them differ.
    pub(crate) differing: fn(&T, &T) -> Vec<&'static str>,
}

impl Plugin {
    /// Have a shadow beside this version answer what it has answered. `without` is what holds where nobody is asked.
    pub(crate) fn compare<T: Clone + Send + 'static>(
        &self,
        answers: &Answers<T>,
        event: &str,
        question: impl FnOnce() -> Question,
        answer: &CallResult<T>,
        without: impl FnOnce() -> T,
    ) {
        if let Some(beside) = &*self.beside.load()
            && let Some(shadow) = beside.shadow()
        {
            let expected = value(answer);
            shadow.compare(&beside.plugin, answers, event, question, expected, without);
        }
    }

    /// Have a shadow beside this version answer what this version is not asked, because it does not export it.
    pub(crate) fn compare_alone<T: Clone + Send + 'static>(
        &self,
        answers: &Answers<T>,
        event: &EventView<'_>,
        question: impl FnOnce() -> Question,
        without: impl Fn() -> T,
    ) {
        if let Some(beside) = &*self.beside.load()
            && let Some(shadow) = beside.shadow()
            && (answers.exported)(beside.plugin.exports())
            && beside.plugin.sees(event.event_type)
        {
            let expected = Ok(without());
            shadow.compare(
                &beside.plugin,
                answers,
                event.id,
                question,
                expected,
                without,
            );
        }
    }
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

    /// Have the shadow answer, too, what the version in service has answered, or left as it is. A shadow
    /// that does not export what is asked leaves it so.
    fn compare<T: Clone + Send + 'static>(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        answers: &Answers<T>,
        event: &str,
        question: impl FnOnce() -> Question,
        expected: Result<T, Fault>,
        without: impl FnOnce() -> T,
    ) {
        let Answers {
            read, differing, ..
        } = *answers;
        if !(answers.exported)(plugin.exports()) {
            let parts = parts(&expected, &Ok(without()), differing);
            self.note(plugin, event, parts);
            return;
        }
        let Some(slot) = self.slot(plugin) else {
            return;
        };
        let (shadow, plugin) = (Arc::clone(self), Arc::clone(plugin));
        let (question, event) = (question(), event.to_owned());
        tokio::spawn(async move {
            // If there is a place for the call now.
            let answer = plugin.ask(question, Duration::ZERO, read).await;
            let parts = parts(&expected, &value(&answer), differing);
            shadow.note(&plugin, &event, parts);
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

/// The names of those parts that differ.
pub(crate) fn named<const N: usize>(parts: [(&'static str, bool); N]) -> Vec<&'static str> {
    let differing = parts.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| name).collect()
}
