//! The story of a delivery: its attempts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wasmhook_core::attempt::{Attempt, ErrorClass, Outcome};

use super::{Result, time};
use crate::plugin_use::{self, PackedUse, PackedVerdict};

/// Of very many attempts, the first and the latest are kept, this many in all.
pub const MAX_ATTEMPTS: usize = 50;
/// The longest response excerpt kept of an attempt, in bytes.
pub const MAX_EXCERPT: usize = 1024;

/// Those that are kept: the first and the latest.
pub(super) fn kept<'a>(
    attempts: &'a [Attempt],
    latest: Option<&'a Attempt>,
) -> impl Iterator<Item = &'a Attempt> + Clone {
    let all = attempts.len() + usize::from(latest.is_some());
    let skipped = all.saturating_sub(MAX_ATTEMPTS);
    attempts
        .iter()
        .chain(latest)
        .enumerate()
        .filter(move |(place, _)| *place == 0 || *place > skipped)
        .map(|(_, attempt)| attempt)
}

/// See the module; the verdicts of its plugins stand elsewhere.
#[derive(Serialize, Deserialize)]
pub(super) struct PackedAttempt {
    number: u32,
    at: i64,
    duration_ms: u64,
    outcome: Outcome,
    status_code: Option<u16>,
    retryable: bool,
    error_class: Option<ErrorClass>,
    error: Option<String>,
    plugins: Vec<PackedUse>,
    response_excerpt: Option<String>,
    next_at: Option<i64>,
}

impl PackedAttempt {
    pub(super) fn new(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.as_millisecond(),
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome,
            status_code: attempt.status_code,
            retryable: attempt.retryable,
            error_class: attempt.error_class,
            error: attempt.error.as_deref().map(|text| cut(text, MAX_EXCERPT)),
            plugins: attempt.plugins.iter().map(PackedUse::from).collect(),
            response_excerpt: attempt
                .response_excerpt
                .as_deref()
                .map(|text| cut(text, MAX_EXCERPT)),
            next_at: attempt.next_at.map(Timestamp::as_millisecond),
        }
    }

    pub(super) fn unpack(self, verdicts: Vec<PackedVerdict>) -> Result<Attempt> {
        Ok(Attempt {
            number: self.number,
            at: time(self.at)?,
            duration_ms: self.duration_ms,
            outcome: self.outcome,
            status_code: self.status_code,
            retryable: self.retryable,
            error_class: self.error_class,
            error: self.error,
            plugins: plugin_use::unpack(self.plugins, verdicts),
            response_excerpt: self.response_excerpt,
            next_at: self.next_at.map(time).transpose()?,
            wait: None,
        })
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::samples::attempt;
    use super::*;

    #[test]
    fn of_many_attempts_the_first_and_the_latest_are_kept() {
        let attempts: Vec<_> = (1..=59).map(|n| attempt(n, "x", None)).collect();
        let latest = attempt(60, "x", None);
        let numbers: Vec<_> = kept(&attempts, Some(&latest)).map(|a| a.number).collect();
        assert_eq!(numbers.len(), MAX_ATTEMPTS);
        assert_eq!(numbers[..2], [1, 12]);
        assert_eq!(numbers.last(), Some(&60));
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let long = attempt(1, &"é".repeat(2000), Some(500));
        let kept = PackedAttempt::new(&long).unpack(Vec::new()).unwrap();
        assert_eq!(kept.response_excerpt.unwrap().len(), MAX_EXCERPT);
        let odd = attempt(1, &format!("x{}", "é".repeat(2000)), Some(500));
        let kept = PackedAttempt::new(&odd).unpack(Vec::new()).unwrap();
        assert_eq!(kept.response_excerpt.unwrap().len(), MAX_EXCERPT - 1);
    }
}
