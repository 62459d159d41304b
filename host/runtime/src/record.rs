//! What the calls of one version of a plugin have come to, for who operates the host.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::Fault;
use crate::versions::Calls;

/// Parts that each power of two of microseconds is divided into: a percentile is at most an eighth off.
const PARTS: u32 = 8;
/// Powers of two that are told apart: up to a minute, far past any wall time.
const POWERS: u32 = 26;
const BUCKETS: usize = (POWERS * PARTS) as usize;

/// Counts calls as they end.
#[derive(Debug)]
pub(crate) struct Record {
    errors: AtomicU64,
    /// Those of the errors that are the guest's misconduct.
    faults: AtomicU64,
    cpu_nanos: AtomicU64,
    /// Whole calls by their time on the wall.
    times: [AtomicU32; BUCKETS],
    last_error: Mutex<Option<(SystemTime, String)>>,
}

/// What is told of the calls of the version that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallStatistics {
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that gave no answer.
    pub errors: u64,
    /// Processor time of them all.
    pub cpu: Duration,
    /// Half of the calls took at most this long, waiting included; at most an eighth too high.
    pub p50: Option<Duration>,
    /// The same for ninety-nine of a hundred.
    pub p99: Option<Duration>,
    /// When the last call failed, and how.
    pub last_error: Option<(SystemTime, String)>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            errors: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            cpu_nanos: AtomicU64::new(0),
            times: [const { AtomicU32::new(0) }; BUCKETS],
            last_error: Mutex::default(),
        }
    }
}

impl Record {
    /// Take down a call that took this long and cost that much.
    pub(crate) fn note(&self, took: Duration, cpu: Duration, fault: Option<&Fault>) {
        let nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.times[bucket(took)].fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = fault {
            self.note_error(fault);
        }
    }

    /// Take down that a call failed, or that what it gave could not be used.
    pub(crate) fn note_error(&self, fault: &Fault) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if fault.is_misconduct() {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some((SystemTime::now(), fault.to_string()));
    }

    /// The calls, and those that were the guest's misconduct.
    pub(crate) fn calls(&self) -> Calls {
        let counts = self.times.iter();
        Calls {
            calls: counts
                .map(|count| u64::from(count.load(Ordering::Relaxed)))
                .sum(),
            faults: self.faults.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn statistics(&self) -> CallStatistics {
        let times = self
            .times
            .each_ref()
            .map(|count| u64::from(count.load(Ordering::Relaxed)));
        let calls: u64 = times.iter().sum();
        let at = |share: u64| {
            let rank = (calls * share).div_ceil(100).max(1);
            let mut seen = 0;
            times.iter().position(|count| {
                seen += count;
                seen >= rank
            })
        };
        let last_error = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        CallStatistics {
            calls,
            errors: self.errors.load(Ordering::Relaxed),
            cpu: Duration::from_nanos(self.cpu_nanos.load(Ordering::Relaxed)),
            p50: at(50).map(upper_end),
            p99: at(99).map(upper_end),
            last_error: last_error.clone(),
        }
    }
}

/// The bucket of a time: below 8 µs one for each microsecond, then eight for each power of two.
fn bucket(time: Duration) -> usize {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let bucket = if micros < PARTS {
        micros
    } else {
        let power = micros.ilog2() - PARTS.ilog2();
        power * PARTS + (micros >> power)
    };
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest time in a bucket.
fn upper_end(bucket: usize) -> Duration {
    let bucket = u64::try_from(bucket).unwrap_or_default();
    let parts = u64::from(PARTS);
    let micros = if bucket < parts {
        bucket + 1
    } else {
        let power = bucket / parts - 1;
        (bucket % parts + parts + 1) << power
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_its_bucket_and_no_bucket_is_wider_than_an_eighth() {
        let mut before = 0;
        for micros in (0..5_000).chain((5_000..60_000_000).step_by(7_919)) {
            let time = Duration::from_micros(micros);
            let bucket = bucket(time);
            assert!(bucket >= before, "{micros} µs");
            before = bucket;
            let end = upper_end(bucket);
            assert!(time < end, "{micros} µs is below {end:?}");
            let slack = end.checked_sub(time).unwrap();
            assert!(
                slack <= Duration::from_micros(1 + micros / 8),
                "{micros} µs, {end:?}"
            );
        }
    }

    #[test]
    fn statistics_tell_what_was_noted() {
        let record = Record::default();
        assert_eq!(record.statistics(), CallStatistics::default());
        for micros in 1..=100 {
            record.note(
                Duration::from_micros(micros),
                Duration::from_micros(10),
                None,
            );
        }
        record.note(
            Duration::from_millis(50),
            Duration::from_millis(50),
            Some(&Fault::CpuTime { limit_ms: 50 }),
        );
        let told = record.statistics();
        assert_eq!((told.calls, told.errors), (101, 1));
        assert_eq!(told.cpu, Duration::from_micros(51_000));
        assert_eq!(told.p50, Some(Duration::from_micros(52)));
        assert_eq!(told.p99, Some(Duration::from_micros(104)));
        assert_eq!(
            told.last_error.unwrap().1,
            "used more than 50 ms of processor time"
        );
    }
}
