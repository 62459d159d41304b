//! What becomes of a delivery whose receiver answered, where somebody knows better than the status.

use std::time::Duration;

use crate::attempt::{Attempt, ErrorClass, Outcome, Wait};

/// What an answer is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The receiver has it.
    Accepted,
    /// To be tried again: after this long in place of the retry policy's wait, if it is named.
    Retry(Option<Duration>),
    /// Never to be tried again.
    GiveUp,
}

impl Attempt {
    /// What the attempt's answer is taken for as it stands.
    pub fn judgement(&self) -> Judgement {
        match (self.outcome, self.retryable, self.wait) {
            (Outcome::Accepted, ..) => Judgement::Accepted,
            (_, false, _) => Judgement::GiveUp,
            (_, true, None) => Judgement::Retry(None),
            (_, true, Some(Wait::AtLeast(wait) | Wait::Exactly(wait))) => {
                Judgement::Retry(Some(wait))
            }
        }
    }

    /// The attempt with its answer taken for something else, by a plugin of this name for a reason that
    /// is free of payload and secret. Where the judgement is the one it had, only the reason is new.
    #[must_use]
    pub fn judged(mut self, judgement: Judgement, plugin: &str, reason: Option<&str>) -> Self {
        let before = self.judgement();
        if judgement == before && reason.is_none() {
            return self;
        }
        if judgement != before {
            let accepted = judgement == Judgement::Accepted;
            self.outcome = if accepted {
                Outcome::Accepted
            } else {
                Outcome::Failed
            };
            self.error_class = (!accepted).then_some(ErrorClass::Status);
            self.retryable = matches!(judgement, Judgement::Retry(_));
            self.wait = match judgement {
                Judgement::Retry(wait) => wait.map(Wait::Exactly),
                _ => None,
            };
        }
        let taken = match judgement {
            Judgement::Accepted => "accepts it",
            Judgement::Retry(_) => "has it tried again",
            Judgement::GiveUp => "gives it up",
        };
        let mut words = format!("plugin {plugin} {taken}");
        if let Some(reason) = reason {
            words.push_str(": ");
            words.push_str(reason);
        }
        self.add_words(&words);
        self
    }

    /// Says more about what happened, after what is said already.
    pub fn add_words(&mut self, words: &str) {
        let mut error = self.error.take().unwrap_or_else(|| {
            let status = self.status_code.unwrap_or_default();
            format!("the receiver answered with status {status}")
        });
        error.push_str("; ");
        error.push_str(words);
        self.error = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn answered(status: u16) -> Attempt {
        Attempt::answered(1, Timestamp::UNIX_EPOCH, Duration::ZERO, status)
    }

    #[test]
    fn an_answer_can_be_taken_for_anything() {
        let accepted = answered(409).judged(Judgement::Accepted, "20-j", Some("it has it"));
        assert!(accepted.accepted() && accepted.error_class.is_none());
        assert_eq!(
            accepted.error.as_deref(),
            Some("the receiver answered with status 409; plugin 20-j accepts it: it has it")
        );
        let wait = Duration::from_secs(7);
        let again = answered(200).judged(Judgement::Retry(Some(wait)), "20-j", None);
        assert_eq!(
            (
                again.outcome,
                again.retryable,
                again.wait,
                again.error_class
            ),
            (
                Outcome::Failed,
                true,
                Some(Wait::Exactly(wait)),
                Some(ErrorClass::Status)
            )
        );
        let dead = answered(503).judged(Judgement::GiveUp, "20-j", None);
        assert!(!dead.retryable && !dead.accepted());
        assert_eq!(
            dead.error.as_deref(),
            Some("the receiver answered with status 503; plugin 20-j gives it up")
        );
    }

    #[test]
    fn who_gives_the_judgement_back_changes_nothing() {
        let asked = Some(Duration::from_secs(60));
        for attempt in [
            answered(204),
            answered(410),
            answered(503).asked_to_wait(asked),
        ] {
            let same = attempt.clone().judged(attempt.judgement(), "20-j", None);
            assert_eq!(same, attempt);
        }
    }
}
