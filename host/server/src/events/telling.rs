//! How often the log is told that events cannot be taken in.
//!
//! While the store is away producers push again and again, some thousand times a second, and a line for each
//! would fill the disk that may be what the store waits for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Telling(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    at: Option<Instant>,
    untold: u64,
}

impl Telling {
    /// Whether to tell of a request that failed now, and of how many others nothing was told since the last
    /// line.
    pub(super) fn due(&self, now: Instant) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| now < at + PAUSE) {
            last.untold += 1;
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_that_fail_are_told_in_few_lines() {
        let telling = Telling::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(telling.due(start), Some(0));
        let told = (1..10_000).filter_map(|millis| telling.due(after(millis)));
        assert_eq!(told.count(), 0);
        assert_eq!(telling.due(after(10_000)), Some(9_999));
        assert_eq!(telling.due(after(30_000)), Some(0));
    }
}
