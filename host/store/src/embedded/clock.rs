//! The store's clock: the system's, never backwards, in nanoseconds as the tables keep it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmhook_core::ports::Clock;

/// A clock that all connections of one store share.
pub(super) struct StoreClock {
    system: Arc<dyn Clock>,
    last: Mutex<(i64, Instant)>,
}

impl StoreClock {
    /// Starts at the system's time.
    pub(super) fn new(system: Arc<dyn Clock>) -> Self {
        Self {
            last: Mutex::new((nanos(system.now()), Instant::now())),
            system,
        }
    }

    /// Nanoseconds since 1970. When the system's clock is set back, this one walks on from where it
    /// was, so that leases still end and retries still become due.
    pub(super) fn now(&self) -> i64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let walked = last.0.saturating_add(span(at - last.1));
        *last = (walked.max(nanos(self.system.now())), at);
        last.0
    }
}

/// A time as the tables keep it; beyond the year 2262 it is the last one there is.
pub(super) fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// What [`nanos`] made into a number.
pub(super) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos))
        .expect("every 64-bit number of nanoseconds is within the years -9999 to 9999")
}

/// A duration in nanoseconds; a very long one is the longest there is.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// How long from `now` until `then`, zero when that is past.
pub(super) fn until(then: i64, now: i64) -> Duration {
    Duration::from_nanos(u64::try_from(then.saturating_sub(now)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use wasmhook_core::clock::SystemClock;

    use super::*;

    #[test]
    fn the_clock_walks_on_when_the_systems_is_behind() {
        let clock = StoreClock::new(Arc::new(SystemClock));
        let ahead = nanos(Timestamp::now()) + span(Duration::from_hours(1));
        *clock.last.lock().unwrap() = (ahead, Instant::now());
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        let second = clock.now();
        assert!(first >= ahead);
        assert!(second >= first + 2_000_000);
    }

    #[test]
    fn times_come_back_whole() {
        let time: Timestamp = "2026-01-31T09:30:00.123456789Z".parse().unwrap();
        assert_eq!(timestamp(nanos(time)), time);
        assert_eq!(until(5, 9), Duration::ZERO);
    }
}
