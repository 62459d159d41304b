//! The first calls of a new version, in which it may turn out to be a bad one.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use serde::Deserialize;

use crate::error::Fault;
use crate::folder::Key;
use crate::types::Digest;

/// When a new version is taken out of service again, in favour of the one before it.
///
/// Faults count: a trap, a limit exceeded, an answer that cannot be used. That a guest says of its own
/// accord that it failed is no fault, and neither is a call for which the host had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// Calls of a new version that are watched. 100: some seconds of a busy tenant and a day of a
    /// quiet one; a version that fails more rarely than once in twenty calls is for its failure
    /// policy to deal with.
    pub calls: u32,
    /// Events among them whose calls were faults, at which the version is rolled back; 0 for never.
    /// 5: one poisonous event, however often it is tried and to however many endpoints it goes, says
    /// more about itself than about the version.
    pub faults: u32,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            calls: 100,
            faults: 5,
        }
    }
}

/// Who is told how a probation ended.
pub(crate) trait Judge: Send + Sync {
    /// Take the judgement of a version of a plugin.
    fn judge(&self, key: &Key, digest: Digest, judgement: Judgement);
}

/// How a probation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Without too many faults.
    Passed,
    /// With too many, for this reason.
    Failed(String),
}

/// Watches the calls of a version until it is judged.
pub(crate) struct Probation {
    rules: Rollback,
    key: Key,
    digest: Digest,
    judge: Weak<dyn Judge>,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: u32,
    /// Events with a fault, as hashes; never more than the rules allow.
    events: HashSet<u64>,
}

impl Probation {
    pub(crate) fn new(rules: Rollback, key: Key, digest: Digest, judge: Weak<dyn Judge>) -> Self {
        Self {
            rules,
            key,
            digest,
            judge,
            is_over: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Take down a call for an event.
    pub(crate) fn note(&self, event: &str, fault: Option<&Fault>) {
        if !matches!(fault, Some(Fault::Exhausted)) {
            self.weigh(event, fault, 1);
        }
    }

    /// Take down that what a call gave could not be used; the call itself has been noted.
    pub(crate) fn disown(&self, event: &str, fault: &Fault) {
        self.weigh(event, Some(fault), 0);
    }

    fn weigh(&self, event: &str, fault: Option<&Fault>, calls: u32) {
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let Some(judgement) = self.judgement(event, fault, calls) else {
            return;
        };
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(judge) = self.judge.upgrade() {
            judge.judge(&self.key, self.digest, judgement);
        }
    }

    fn judgement(&self, event: &str, fault: Option<&Fault>, calls: u32) -> Option<Judgement> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls += calls;
        if let Some(fault) = fault.filter(|fault| fault.is_misconduct()) {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(event);
            seen.events.insert(hash);
            if seen.events.len() >= self.rules.faults as usize {
                return Some(Judgement::Failed(format!(
                    "it failed for {} of the events of its first {} calls, the last time because it {fault}",
                    seen.events.len(),
                    seen.calls
                )));
            }
        }
        (seen.calls >= self.rules.calls).then_some(Judgement::Passed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Judgement>>);

    impl Judge for Heard {
        fn judge(&self, _: &Key, _: Digest, judgement: Judgement) {
            self.0.lock().unwrap().push(judgement);
        }
    }

    fn probation(calls: u32, faults: u32) -> (Arc<Heard>, Probation) {
        let heard = Arc::new(Heard::default());
        let judge: Arc<dyn Judge> = Arc::clone(&heard) as Arc<dyn Judge>;
        let key = Key {
            tenant: "acme".into(),
            name: "10-redact".into(),
        };
        let rules = Rollback { calls, faults };
        let probation = Probation::new(rules, key, Digest::of(b""), Arc::downgrade(&judge));
        (heard, probation)
    }

    const TRAP: Fault = Fault::Trap {
        class: "division by zero",
    };

    #[test]
    fn so_many_events_with_faults_fail_it_and_it_is_judged_once() {
        let (heard, probation) = probation(100, 2);
        let exhausted = Fault::Exhausted;
        let guest = Fault::Guest {
            retryable: true,
            message: "no luck".to_owned(),
        };
        for n in 0..10 {
            probation.note(&n.to_string(), Some(&exhausted));
            probation.note(&n.to_string(), Some(&guest));
            probation.note("poison", Some(&TRAP));
        }
        assert!(heard.0.lock().unwrap().is_empty());
        probation.note("another", Some(&TRAP));
        probation.note("one more", Some(&TRAP));
        let heard = heard.0.lock().unwrap();
        assert_eq!(
            *heard,
            [Judgement::Failed(
                "it failed for 2 of the events of its first 21 calls, the last time because it \
                 trapped: division by zero"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn it_passes_after_its_calls_with_fewer_faults() {
        let (heard, probation) = probation(3, 2);
        probation.note("a", Some(&TRAP));
        probation.note("b", None);
        assert!(heard.0.lock().unwrap().is_empty());
        probation.note("c", None);
        probation.note("d", Some(&TRAP));
        probation.note("e", Some(&TRAP));
        assert_eq!(*heard.0.lock().unwrap(), [Judgement::Passed]);
    }
}
