//! When to try again.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::attempt::Wait;
use crate::ids::DeliveryId;

/// How often, and after which waits, a delivery is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Wait after the first attempt, doubled after each further one. Default 1 s (contract).
    pub base: Duration,
    /// No wait is longer. Default 60 s (contract).
    pub maximum: Duration,
    /// Waits to use instead of the exponential ones: the first after the first attempt, and so on.
    /// Its length plus one is then the number of attempts. Empty by default.
    pub schedule: Vec<Duration>,
    /// Attempts in all before a delivery is a dead letter, when there is no schedule. Default 10.
    pub max_attempts: u32,
    /// Share of each wait that is added or taken at random, 0.0 to 1.0. Default 0, which is exact.
    pub jitter: f64,
    /// The longest wait that a receiver's `Retry-After`, or a classifier, can ask for. Default one hour: a
    /// receiver that means a day is asked again sooner, and one that errs does not lose its deliveries
    /// for ever.
    pub asked_maximum: Duration,
}

/// The shortest wait that can be asked for in place of the policy's: the number of attempts is bounded,
/// and none of them should be spent on the same moment.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            maximum: Duration::from_secs(60),
            schedule: Vec::new(),
            max_attempts: 10,
            jitter: 0.0,
            asked_maximum: Duration::from_secs(60 * 60),
        }
    }
}

impl RetryPolicy {
    /// The bounded exponential wait after one-based attempt `n`: base · 2^(n−1), at most the
    /// maximum. Does not overflow for any `n`; zero counts as one.
    pub fn exponential(&self, n: u32) -> Duration {
        let factor = 1u128.checked_shl(n.saturating_sub(1));
        match factor.and_then(|factor| self.base.as_nanos().checked_mul(factor)) {
            Some(wait) if wait < self.maximum.as_nanos() => Duration::from_nanos_u128(wait),
            None if self.base.is_zero() => Duration::ZERO,
            _ => self.maximum,
        }
    }

    /// How many attempts there are in all.
    pub fn attempts(&self) -> u32 {
        if self.schedule.is_empty() {
            self.max_attempts.max(1)
        } else {
            u32::try_from(self.schedule.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1)
        }
    }

    /// The wait of [`Self::wait_after`] with what was asked about it.
    ///
    /// `Retry-After` is the least that a client ought to wait (RFC 9110, 10.2.3), and no leave to come
    /// sooner than the policy: its waits grow because the same delivery failed before, which the
    /// receiver, who names the same few seconds to everybody, does not know. It uses up an attempt as
    /// any failure does, so a receiver that always asks for time gets its dead letter in the end.
    pub fn wait_asked(
        &self,
        n: u32,
        delivery: &DeliveryId,
        asked: Option<Wait>,
    ) -> Option<Duration> {
        let wait = self.wait_after(n, delivery)?;
        Some(match asked {
            None => wait,
            Some(Wait::AtLeast(least)) => {
                let least = least.min(self.asked_maximum);
                // Spread to the later side: everybody was told the same moment.
                let spread = self.jitter.clamp(0.0, 1.0) * unit(n, delivery);
                wait.max(least.mul_f64(1.0 + spread))
            }
            Some(Wait::Exactly(exact)) => exact.min(self.asked_maximum).max(SHORTEST_WAIT),
        })
    }

    /// The wait after attempt `n` of a delivery since it was enqueued or last replayed, or `None`
    /// when the policy is exhausted. Jitter is drawn from the delivery's id and `n`: spread over
    /// deliveries, yet the same when asked twice.
    pub fn wait_after(&self, n: u32, delivery: &DeliveryId) -> Option<Duration> {
        if n >= self.attempts() {
            return None;
        }
        let index = usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let exact = match self.schedule.get(index) {
            Some(wait) => *wait,
            None => self.exponential(n),
        };
        let jitter = self.jitter.clamp(0.0, 1.0);
        if jitter == 0.0 {
            return Some(exact);
        }
        let factor = 1.0 + jitter * (2.0 * unit(n, delivery) - 1.0);
        Some(Duration::try_from_secs_f64(exact.as_secs_f64() * factor).unwrap_or(exact))
    }
}

/// A number in 0.0..1.0 drawn from attempt and delivery.
fn unit(n: u32, delivery: &DeliveryId) -> f64 {
    let mut hash = Sha256::new();
    hash.update(delivery.as_str());
    hash.update(n.to_be_bytes());
    let digest = hash.finalize();
    let drawn = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(drawn) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeliveryId {
        DeliveryId::new(text).unwrap()
    }

    #[test]
    fn doubles_from_the_base_up_to_the_maximum() {
        let policy = RetryPolicy::default();
        let waits: Vec<_> = (1..=8).map(|n| policy.exponential(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn tiny_bases_double_as_long_as_it_takes() {
        let with = |base| RetryPolicy {
            base,
            ..RetryPolicy::default()
        };
        assert_eq!(
            with(Duration::from_nanos(1)).exponential(33),
            Duration::from_nanos(1 << 32)
        );
        assert_eq!(with(Duration::ZERO).exponential(500), Duration::ZERO);
    }

    #[test]
    fn is_exhausted_after_the_last_attempt() {
        let policy = RetryPolicy {
            max_attempts: 3,
            ..RetryPolicy::default()
        };
        assert!(policy.wait_after(2, &id("d")).is_some());
        assert!(policy.wait_after(3, &id("d")).is_none());
    }

    #[test]
    fn a_schedule_replaces_the_exponential_waits() {
        let schedule = vec![Duration::from_secs(5), Duration::from_secs(300)];
        let policy = RetryPolicy {
            schedule,
            ..RetryPolicy::default()
        };
        assert_eq!(policy.attempts(), 3);
        assert_eq!(
            policy.wait_after(2, &id("d")),
            Some(Duration::from_secs(300))
        );
        assert_eq!(policy.wait_after(3, &id("d")), None);
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_up_to_the_maximum_and_never_for_less() {
        let policy = RetryPolicy {
            schedule: vec![Duration::from_secs(5), Duration::from_secs(7200)],
            ..RetryPolicy::default()
        };
        let after = |n, seconds| {
            let asked = Some(Wait::AtLeast(Duration::from_secs(seconds)));
            policy
                .wait_asked(n, &id("d"), asked)
                .map(|wait| wait.as_secs())
        };
        assert_eq!(after(1, 0), Some(5));
        assert_eq!(after(1, 120), Some(120));
        assert_eq!(after(1, u64::MAX), Some(3600));
        assert_eq!(
            after(2, 120),
            Some(7200),
            "the maximum bounds what is asked only"
        );
        assert_eq!(after(3, 120), None, "asking does not add attempts");
    }

    #[test]
    fn who_was_told_the_same_moment_comes_spread_after_it() {
        let policy = RetryPolicy {
            jitter: 0.1,
            ..RetryPolicy::default()
        };
        let least = Duration::from_secs(600);
        let waits: std::collections::BTreeSet<_> = (0..50)
            .map(|n| {
                let wait = policy.wait_asked(1, &id(&format!("d{n}")), Some(Wait::AtLeast(least)));
                wait.unwrap().as_secs()
            })
            .collect();
        assert!(waits.len() > 20, "{waits:?}");
        assert!(
            waits.iter().all(|wait| (600..=660).contains(wait)),
            "{waits:?}"
        );
    }

    #[test]
    fn a_classifier_replaces_the_wait_within_bounds() {
        let policy = RetryPolicy {
            schedule: vec![Duration::from_secs(300)],
            ..RetryPolicy::default()
        };
        let after = |seconds| {
            let asked = Some(Wait::Exactly(Duration::from_secs(seconds)));
            policy
                .wait_asked(1, &id("d"), asked)
                .map(|wait| wait.as_secs())
        };
        assert_eq!(
            [after(0), after(20), after(1 << 40)],
            [Some(1), Some(20), Some(3600)]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_attempt_number_overflows(n: u32, base_ms in 0u64..u64::MAX, max_ms in 0u64..u64::MAX) {
            let policy = RetryPolicy {
                base: Duration::from_millis(base_ms),
                maximum: Duration::from_millis(max_ms),
                ..RetryPolicy::default()
            };
            proptest::prop_assert!(policy.exponential(n) <= policy.maximum);
        }

        #[test]
        fn jitter_stays_within_its_share(n in 1u32..9, name in "[a-z]{1,12}") {
            let policy = RetryPolicy { jitter: 0.2, ..RetryPolicy::default() };
            let exact = policy.exponential(n).as_secs_f64();
            let wait = policy.wait_after(n, &id(&name)).unwrap().as_secs_f64();
            proptest::prop_assert!((exact * 0.8 - 1e-6..=exact * 1.2 + 1e-6).contains(&wait));
        }
    }
}
