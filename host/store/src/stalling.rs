//! Endpoints that stall: how few deliveries they may have in flight until they answer again.
//!
//! A delivery is in flight for as long as its receiver takes. One that is dead without refusing connections holds
//! every place that it gets for the whole of `delivery.timeout`, and some of these would hold all places of a host.
//! So every [`STEP`] attempts in which an endpoint stalls halve what it may have in flight, down to a 128th, and each
//! answer doubles it. What it still gets finds out whether it is back. What it does not get waits where it is due, and
//! uses up none of its attempts meanwhile.
//!
//! That is known per endpoint and over all hosts: in Redis by `lua/stalling.lua`, which goes by the same numbers, and
//! in the memory of the one host of an embedded store.

use std::time::Duration;

use wasmhook_core::ErrorClass;
use wasmhook_core::attempt::{Attempt, Outcome};

/// An attempt that failed stalled its place if it took so long. Receivers that fail at once cost next to nothing,
/// and those that accept in the end are not failing.
const LONG: Duration = Duration::from_secs(1);
/// Attempts that halve what an endpoint may have in flight. An endpoint of which more than four in five attempts
/// stall is held back.
const STEP: u8 = 4;
/// How often it is halved at most: 512 become 4, with which fifty dead endpoints occupy a fifth of a host.
const HALVED: u8 = 7;

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It answers: the receiver accepted, or failed at once.
    Answered,
    /// It stalls: no answer came in time, or a failure that took long.
    Stalled,
    /// Nothing: no request was made, or none reached anybody.
    Unknown,
}

impl Reaction {
    /// What this attempt says.
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let long = u128::from(attempt.duration_ms) >= LONG.as_millis();
        let timed_out = attempt.error_class == Some(ErrorClass::Timeout);
        match attempt.outcome {
            Outcome::Failed | Outcome::TransportError if long || timed_out => Self::Stalled,
            Outcome::Accepted | Outcome::Failed => Self::Answered,
            _ => Self::Unknown,
        }
    }
}

/// How much an endpoint stalls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stalling(u8);

impl Stalling {
    /// After one more attempt.
    #[must_use]
    pub(crate) fn after(self, reaction: Reaction) -> Self {
        Self(match reaction {
            Reaction::Answered => self.0.saturating_sub(STEP),
            Reaction::Stalled => (self.0 + 1).min(STEP * HALVED),
            Reaction::Unknown => self.0,
        })
    }

    /// Whether it does not.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it is held back for that.
    pub(crate) fn holds_back(self) -> bool {
        self.0 >= STEP
    }

    /// How many it may have in flight where others may have `most`.
    pub(crate) fn part_of(self, most: usize) -> usize {
        (most >> (self.0 / STEP)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn answered(status: u16, ms: u64) -> Reaction {
        let took = Duration::from_millis(ms);
        Reaction::of(&Attempt::answered(1, AT, took, status))
    }

    fn unanswered(class: ErrorClass, ms: u64) -> Reaction {
        let took = Duration::from_millis(ms);
        Reaction::of(&Attempt::unanswered(1, AT, took, class, "no answer"))
    }

    #[test]
    fn who_accepts_or_fails_at_once_answers() {
        for (status, ms) in [(204, 5), (204, 9_000), (500, 5), (410, 999)] {
            assert_eq!(answered(status, ms), Reaction::Answered, "{status} {ms}");
        }
    }

    #[test]
    fn who_fails_late_or_not_at_all_stalls() {
        assert_eq!(answered(504, 1_000), Reaction::Stalled);
        assert_eq!(unanswered(ErrorClass::Connect, 3_000), Reaction::Stalled);
        // However short the time is that is waited for an answer.
        assert_eq!(unanswered(ErrorClass::Timeout, 200), Reaction::Stalled);
    }

    #[test]
    fn a_refused_connection_and_what_was_not_sent_say_nothing() {
        assert_eq!(unanswered(ErrorClass::Connect, 1), Reaction::Unknown);
        let took = Duration::from_secs(5);
        let skipped = Attempt::skipped(1, AT, took, "not wanted");
        assert_eq!(Reaction::of(&skipped), Reaction::Unknown);
        let trapped = Attempt::refused(
            1,
            AT,
            took,
            Outcome::PluginError,
            ErrorClass::Plugin,
            true,
            "a plugin trapped",
        );
        assert_eq!(Reaction::of(&trapped), Reaction::Unknown);
    }

    fn after(mut stalling: Stalling, reaction: Reaction, times: usize) -> Stalling {
        for _ in 0..times {
            stalling = stalling.after(reaction);
        }
        stalling
    }

    #[test]
    fn what_stalls_is_halved_down_to_a_128th_and_each_answer_doubles_it() {
        let mut stalling = Stalling::default();
        for part in [512, 256, 128, 64, 32, 16, 8, 4, 4] {
            assert_eq!(stalling.part_of(512), part);
            stalling = after(stalling, Reaction::Stalled, 4);
        }
        for part in [4, 8, 16, 32, 64, 128, 256, 512] {
            assert_eq!(stalling.part_of(512), part);
            stalling = stalling.after(Reaction::Answered);
        }
        assert!(stalling.is_none());
    }

    #[test]
    fn one_is_always_left_to_find_out_whether_it_is_back() {
        let stalling = after(Stalling::default(), Reaction::Stalled, 100);
        assert_eq!(stalling.part_of(1), 1);
        assert_eq!(stalling.after(Reaction::Unknown), stalling);
    }
}
