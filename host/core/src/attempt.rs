//! Attempts: what one exchange with a receiver, or the refusal before it, came to.

mod class;

pub use self::class::{ErrorClass, Outcome, StatusClass};

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::event::EventType;
use crate::ids::{DeliveryId, EndpointId, EventId, TenantId};

/// A plugin that an attempt went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUse {
    /// The plugin's name within the tenant.
    pub name: String,
    /// Lower-case hex SHA-256 of the component that ran: its version.
    pub digest: String,
    /// CPU time the guest used, in microseconds.
    pub cpu_us: u64,
    /// What it came to, in one word: `deliver`, `skip` or `resolve`; `failure` when the plugin says that
    /// it failed; `refused` when its answer broke a rule; `unready` when no version served; otherwise the
    /// class of its misconduct, such as `trap` or `cpu-time`. `None` in records of older hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// The facts of one attempt.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// One for the first; counted over the whole life of the delivery, replays included.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, plugins included, in milliseconds.
    pub duration_ms: u64,
    /// What it came to.
    pub outcome: Outcome,
    /// The receiver's status, if it answered.
    pub status_code: Option<u16>,
    /// Whether trying again may help.
    pub retryable: bool,
    /// Class of failure; `None` when accepted or skipped.
    pub error_class: Option<ErrorClass>,
    /// The failure, or the reason for skipping, in words free of payload and secret.
    pub error: Option<String>,
    /// The plugins it went through, in order.
    pub plugins: Vec<PluginUse>,
    /// The beginning of the receiver's answer, for the tenant only; never in a log or metric.
    pub response_excerpt: Option<String>,
    /// When the next attempt is due, if there is one.
    pub next_at: Option<Timestamp>,
    /// What was asked about the wait before it. It goes into `next_at` and is not kept.
    #[serde(skip)]
    pub wait: Option<Wait>,
}

/// What a receiver or a plugin asks about the wait before the next attempt. Never more than
/// [`RetryPolicy::asked_maximum`](crate::RetryPolicy::asked_maximum) is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A receiver's `Retry-After`: no sooner than this, and no sooner than the retry policy says.
    AtLeast(Duration),
    /// A classifier's word, in place of what the retry policy says.
    Exactly(Duration),
}

// By hand, because the excerpt is the receiver's content and must not reach a log by a debug print.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("at", &self.at)
            .field("duration_ms", &self.duration_ms)
            .field("outcome", &self.outcome)
            .field("status_code", &self.status_code)
            .field("retryable", &self.retryable)
            .field("error_class", &self.error_class)
            .field("error", &self.error)
            .field("plugins", &self.plugins)
            .field("next_at", &self.next_at)
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// An attempt that the receiver answered, classified by its status: 200–299 accepted; 429 and
    /// everything from 500 on retryable; the rest permanent.
    pub fn answered(number: u32, at: Timestamp, duration: Duration, status: u16) -> Self {
        let accepted = matches!(status, 200..=299);
        Self {
            outcome: if accepted {
                Outcome::Accepted
            } else {
                Outcome::Failed
            },
            status_code: Some(status),
            retryable: !accepted && (status == 429 || status >= 500),
            error_class: (!accepted).then_some(ErrorClass::Status),
            error: (!accepted).then(|| format!("the receiver answered with status {status}")),
            ..Self::blank(number, at, duration)
        }
    }

    /// The same with the answer's `Retry-After`, which counts where the status says that the receiver is
    /// not there for now: 429 and 503.
    #[must_use]
    pub fn asked_to_wait(mut self, retry_after: Option<Duration>) -> Self {
        if matches!(self.status_code, Some(429 | 503)) {
            self.wait = retry_after.map(Wait::AtLeast);
        }
        self
    }

    /// An attempt that got no answer. Always retryable.
    pub fn unanswered(
        number: u32,
        at: Timestamp,
        duration: Duration,
        class: ErrorClass,
        error: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::TransportError,
            retryable: true,
            error_class: Some(class),
            error: Some(error.into()),
            ..Self::blank(number, at, duration)
        }
    }

    /// An attempt refused before any request was made.
    pub fn refused(
        number: u32,
        at: Timestamp,
        duration: Duration,
        outcome: Outcome,
        class: ErrorClass,
        retryable: bool,
        error: impl Into<String>,
    ) -> Self {
        Self {
            outcome,
            retryable,
            error_class: Some(class),
            error: Some(error.into()),
            ..Self::blank(number, at, duration)
        }
    }

    /// An attempt that a transform plugin asked not to make.
    pub fn skipped(
        number: u32,
        at: Timestamp,
        duration: Duration,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Skipped,
            error: Some(reason.into()),
            ..Self::blank(number, at, duration)
        }
    }

    fn blank(number: u32, at: Timestamp, duration: Duration) -> Self {
        Self {
            number,
            at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            outcome: Outcome::Failed,
            status_code: None,
            retryable: false,
            error_class: None,
            error: None,
            plugins: Vec::new(),
            response_excerpt: None,
            next_at: None,
            wait: None,
        }
    }

    /// Whether the receiver accepted it.
    pub fn accepted(&self) -> bool {
        self.outcome == Outcome::Accepted
    }

    /// The class of the answer, for metrics.
    pub fn status_class(&self) -> StatusClass {
        match (self.status_code, self.outcome) {
            (Some(status), _) => StatusClass::of(status),
            (None, Outcome::TransportError) => StatusClass::Transport,
            (None, _) => StatusClass::Unknown,
        }
    }
}

/// An attempt together with what it was an attempt at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptResult {
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The endpoint it was meant for.
    pub endpoint_id: EndpointId,
    /// The event delivered.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// What happened.
    #[serde(flatten)]
    pub attempt: Attempt,
}

impl AttemptResult {
    /// Says of which delivery the attempt was.
    pub fn of(delivery: &Delivery, attempt: Attempt) -> Self {
        Self {
            delivery_id: delivery.id.clone(),
            tenant_id: delivery.tenant_id.clone(),
            endpoint_id: delivery.endpoint_id.clone(),
            event_id: delivery.event_id.clone(),
            event_type: delivery.event_type.clone(),
            attempt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Attempt {
        Attempt::answered(1, Timestamp::UNIX_EPOCH, Duration::from_millis(5), status)
    }

    #[test]
    fn only_2xx_is_accepted() {
        for status in [200, 204, 299] {
            assert!(answered(status).accepted(), "{status}");
        }
        for status in [100, 199, 300, 301, 400, 404, 410, 429, 500, 599] {
            assert!(!answered(status).accepted(), "{status}");
        }
    }

    #[test]
    fn only_429_and_5xx_are_retryable_answers() {
        for status in [429, 500, 502, 503, 599, 700] {
            assert!(answered(status).retryable, "{status}");
        }
        for status in [200, 301, 400, 401, 404, 408, 410] {
            assert!(!answered(status).retryable, "{status}");
        }
    }

    #[test]
    fn a_transport_error_is_retryable_and_of_its_own_class() {
        let attempt = Attempt::unanswered(
            1,
            Timestamp::UNIX_EPOCH,
            Duration::ZERO,
            ErrorClass::Dns,
            "no such host",
        );
        assert!(attempt.retryable);
        assert_eq!(attempt.status_class().as_str(), "transport");
        assert_eq!(attempt.outcome.as_str(), "transport_error");
    }

    #[test]
    fn only_429_and_503_ask_for_time() {
        let hour = Some(Duration::from_secs(3600));
        for (status, wait) in [
            (429, hour.map(Wait::AtLeast)),
            (503, hour.map(Wait::AtLeast)),
            (500, None),
            (200, None),
            (301, None),
        ] {
            assert_eq!(answered(status).asked_to_wait(hour).wait, wait, "{status}");
        }
    }

    #[test]
    fn a_debug_print_hides_the_receivers_answer() {
        let mut attempt = answered(500);
        attempt.response_excerpt = Some("hunter2".into());
        assert!(!format!("{attempt:?}").contains("hunter2"));
    }
}
