//! The first calls of a new version, in which it may turn out to be a bad one.
//!
//! One that is tried out beside the version in service is held to its manifest's rules instead.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::Deserialize;

use crate::error::Fault;
use crate::folder::Key;
use crate::limits::above_zero;
use crate::rollout::Canary;
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
    #[serde(deserialize_with = "above_zero")]
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

/// What a version is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rules {
    /// It serves, and its first calls are watched.
    FirstCalls(Rollback),
    /// It is a canary.
    Canary(Canary),
    /// It is a shadow, which ends with faults for so many events.
    Shadow { faults: u32 },
}

/// Watches the calls of a version until it is judged.
pub(crate) struct Probation {
    rules: Rules,
    key: Key,
    digest: Digest,
    judge: Weak<dyn Judge>,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

/// Calls that were noted.
#[derive(Default)]
struct Seen {
    calls: u64,
    errors: u64,
    slow: u64,
    /// Events with a fault, as hashes; never more than the rules allow.
    events: HashSet<u64>,
}

impl Probation {
    pub(crate) fn new(rules: Rules, key: Key, digest: Digest, judge: Weak<dyn Judge>) -> Self {
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
    pub(crate) fn note(&self, event: &str, took: Duration, fault: Option<&Fault>) {
        if self.is_over.load(Ordering::Relaxed) || matches!(fault, Some(Fault::Exhausted)) {
            return;
        }
        let judgement = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.calls += 1;
            seen.slow += u64::from(self.rules.are_exceeded_by(took));
            self.rules.judge(&mut seen, event, fault)
        };
        if let Some(judgement) = judgement {
            self.end(judgement);
        }
    }

    /// Take down that what a call gave could not be used; the call itself has been noted.
    pub(crate) fn disown(&self, event: &str, fault: &Fault) {
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let judgement = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            self.rules.judge(&mut seen, event, Some(fault))
        };
        if let Some(judgement) = judgement {
            self.end(judgement);
        }
    }

    /// End it well.
    pub(crate) fn pass(&self) {
        self.end(Judgement::Passed);
    }

    fn end(&self, judgement: Judgement) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(judge) = self.judge.upgrade() {
            judge.judge(&self.key, self.digest, judgement);
        }
    }
}

impl Rules {
    fn are_exceeded_by(&self, took: Duration) -> bool {
        match self {
            Self::Canary(Canary {
                max_p99_ms: Some(most),
                ..
            }) => took > Duration::from_millis(*most),
            _ => false,
        }
    }

    /// What follows from a call that has been counted, or from its fault.
    fn judge(&self, seen: &mut Seen, event: &str, fault: Option<&Fault>) -> Option<Judgement> {
        seen.errors += u64::from(fault.is_some());
        let misconduct = fault.filter(|fault| fault.is_misconduct());
        match *self {
            Self::FirstCalls(Rollback { calls, faults }) => seen
                .too_many_events(event, misconduct, faults)
                .or_else(|| (seen.calls >= calls.into()).then_some(Judgement::Passed)),
            Self::Shadow { faults } => seen.too_many_events(event, misconduct, faults),
            Self::Canary(rules) => seen.canary(misconduct, &rules),
        }
    }
}

impl Seen {
    fn too_many_events(
        &mut self,
        event: &str,
        misconduct: Option<&Fault>,
        most: u32,
    ) -> Option<Judgement> {
        let fault = misconduct.filter(|_| most > 0)?;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(event);
        self.events.insert(hash);
        (self.events.len() >= most as usize).then(|| {
            Judgement::Failed(format!(
                "it failed for {} of the events of its first {} calls, the last time because it {fault}",
                self.events.len(),
                self.calls
            ))
        })
    }

    /// A share is one of at least a hundred calls, so that one error among the first does not end it.
    fn canary(&self, misconduct: Option<&Fault>, rules: &Canary) -> Option<Judgement> {
        let calls = self.calls;
        let of = calls.max(100);
        let failed = |words: String| Some(Judgement::Failed(words));
        if let Some(fault) = misconduct {
            return failed(format!("it {fault}, as a canary, in call {calls}"));
        }
        if self.errors * 100 > of * u64::from(rules.max_error_percent) {
            let (errors, most) = (self.errors, rules.max_error_percent);
            return failed(format!(
                "{errors} of its {calls} calls as a canary failed, more than {most} %"
            ));
        }
        if let Some(most) = rules.max_p99_ms.filter(|_| self.slow * 100 > of) {
            let slow = self.slow;
            return failed(format!(
                "{slow} of its {calls} calls as a canary took longer than {most} ms, more than 1 %"
            ));
        }
        (calls >= rules.promote_after).then_some(Judgement::Passed)
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

    fn probation(rules: Rules) -> (Arc<Heard>, Probation) {
        let heard = Arc::new(Heard::default());
        let judge: Arc<dyn Judge> = Arc::clone(&heard) as Arc<dyn Judge>;
        let key = Key {
            tenant: "acme".into(),
            name: "10-redact".into(),
        };
        let probation = Probation::new(rules, key, Digest::of(b""), Arc::downgrade(&judge));
        (heard, probation)
    }

    const FIRST_CALLS: Rules = Rules::FirstCalls(Rollback {
        calls: 100,
        faults: 2,
    });
    const CANARY: Canary = Canary {
        percent: 10,
        promote_after: 300,
        max_error_percent: 1,
        max_p99_ms: Some(20),
    };
    const QUICK: Duration = Duration::from_millis(1);
    const TRAP: Fault = Fault::Trap {
        class: "division by zero",
    };

    #[test]
    fn so_many_events_with_faults_fail_it_and_it_is_judged_once() {
        let (heard, probation) = probation(FIRST_CALLS);
        let exhausted = Fault::Exhausted;
        let guest = Fault::Guest {
            retryable: true,
            message: "no luck".to_owned(),
        };
        for n in 0..10 {
            probation.note(&n.to_string(), QUICK, Some(&exhausted));
            probation.note(&n.to_string(), QUICK, Some(&guest));
            probation.note("poison", QUICK, Some(&TRAP));
        }
        assert!(heard.0.lock().unwrap().is_empty());
        probation.note("another", QUICK, Some(&TRAP));
        probation.note("one more", QUICK, Some(&TRAP));
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
        let (heard, probation) = probation(Rules::FirstCalls(Rollback {
            calls: 3,
            faults: 2,
        }));
        probation.note("a", QUICK, Some(&TRAP));
        probation.note("b", QUICK, None);
        assert!(heard.0.lock().unwrap().is_empty());
        probation.note("c", QUICK, None);
        probation.note("d", QUICK, Some(&TRAP));
        probation.note("e", QUICK, Some(&TRAP));
        assert_eq!(*heard.0.lock().unwrap(), [Judgement::Passed]);
    }

    fn guest_failure() -> Fault {
        Fault::Guest {
            retryable: true,
            message: "no luck".to_owned(),
        }
    }

    fn end(heard: &Heard) -> Option<Judgement> {
        heard.0.lock().unwrap().first().cloned()
    }

    #[test]
    fn a_canary_within_its_bars_passes() {
        let (heard, probation) = probation(Rules::Canary(CANARY));
        let failure = guest_failure();
        for n in 0..299 {
            let fault = (n % 110 == 105).then_some(&failure);
            let took = QUICK * if n % 110 == 100 { 30 } else { 1 };
            probation.note("e", took, fault);
            assert_eq!(end(&heard), None, "call {n}");
        }
        probation.note("e", QUICK, None);
        assert_eq!(end(&heard), Some(Judgement::Passed));
    }

    #[test]
    fn a_canary_ends_with_its_first_trap_its_errors_or_its_slowness() {
        let told = |note: &dyn Fn(&Probation)| {
            let (heard, probation) = probation(Rules::Canary(CANARY));
            for _ in 0..9 {
                probation.note("e", QUICK, None);
            }
            note(&probation);
            let Some(Judgement::Failed(why)) = end(&heard) else {
                panic!("it goes on");
            };
            why
        };
        assert_eq!(
            told(&|canary| canary.note("e", QUICK, Some(&TRAP))),
            "it trapped: division by zero, as a canary, in call 10"
        );
        let twice_failed = |canary: &Probation| {
            for _ in 0..2 {
                canary.note("e", QUICK, Some(&guest_failure()));
            }
        };
        assert_eq!(
            told(&twice_failed),
            "2 of its 11 calls as a canary failed, more than 1 %"
        );
        let twice_slow = |canary: &Probation| {
            for _ in 0..2 {
                canary.note("e", QUICK * 21, None);
            }
        };
        assert_eq!(
            told(&twice_slow),
            "2 of its 11 calls as a canary took longer than 20 ms, more than 1 %"
        );
    }
}
