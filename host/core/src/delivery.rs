//! Deliveries, and what becomes of them.

mod job;
mod state;

pub use self::job::{Job, JobPayload};
pub use self::state::DeliveryState;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::attempt::{Attempt, Outcome, PluginUse};
use crate::endpoint::ResolvedEndpoint;
use crate::error::{Context, Error, Result};
use crate::event::{Event, EventType};
use crate::ids::{DeliveryId, EndpointId, EventId, TenantId};
use crate::retry::RetryPolicy;
use crate::sequence::Sequence;

/// The durable record of one event going to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// See [`default_id`]; sent to the receiver as `webhook-id`, the same on every attempt.
    pub id: DeliveryId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The event delivered.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// Where it goes.
    pub endpoint_id: EndpointId,
    /// The endpoint itself, when a resolver plugin made it up; otherwise it is in the registry.
    pub resolved: Option<ResolvedEndpoint>,
    /// The resolver plugin that was asked for the event's endpoints, if the tenant has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<PluginUse>,
    /// The sequence that it waits its turn in, if its endpoint asked for order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Where it stands. Starts as pending.
    pub state: DeliveryState,
    /// Attempts recorded so far, over the whole life. Starts at 0.
    pub attempt: u32,
    /// The value of `attempt` when it was last replayed, and one more for each attempt that waited for
    /// a plugin to be loaded, or tried a new version of one early; the retry policy counts from there.
    pub replayed_at_attempt: u32,
    /// When it is due; meaningful while pending or failed. Of one that nobody has tried yet it is when it was
    /// enqueued, or the later time that its event is to be delivered at. What failed in a plugin is due for a
    /// look earlier than for its retry, whose time its last attempt has.
    pub next_at: Timestamp,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

impl Delivery {
    /// A pending delivery of `event`, due now or when the event is to be delivered.
    pub fn pending(
        id: DeliveryId,
        event: &Event,
        endpoint_id: EndpointId,
        resolved: Option<ResolvedEndpoint>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant_id: event.tenant_id.clone(),
            event_id: event.id.clone(),
            event_type: event.event_type.clone(),
            endpoint_id,
            resolved,
            resolver: None,
            sequence: None,
            state: DeliveryState::Pending,
            attempt: 0,
            replayed_at_attempt: 0,
            next_at: event.deliver_at.map_or(now, |at| at.max(now)),
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether it waits for the time that its event is to be delivered at: nobody has tried it, and it
    /// was to become due later than it was made.
    pub fn is_scheduled(&self) -> bool {
        self.attempt == 0 && self.next_at > self.created_at
    }

    /// The job that works this delivery off.
    pub fn job(&self, event: &Event) -> Job {
        Job {
            id: self.id.clone(),
            tenant_id: self.tenant_id.clone(),
            attempt: self.attempt,
            payload: JobPayload {
                delivery_id: self.id.clone(),
                endpoint_id: self.endpoint_id.clone(),
                event: event.clone(),
            },
        }
    }

    /// What follows from an attempt: the pure heart of the state machine.
    pub fn conclude(&self, attempt: &Attempt, policy: &RetryPolicy, now: Timestamp) -> Conclusion {
        if matches!(attempt.outcome, Outcome::Accepted | Outcome::Skipped) {
            return Conclusion::Succeeded;
        }
        if !attempt.retryable {
            return Conclusion::DeadLetter;
        }
        let since_replay = attempt.number.saturating_sub(self.replayed_at_attempt);
        let most = self.sequence.as_ref().and_then(|order| order.max_attempts);
        if most.is_some_and(|most| since_replay >= most.get()) {
            return Conclusion::DeadLetter;
        }
        match policy.wait_asked(since_replay, &self.id, attempt.wait) {
            Some(wait) => Conclusion::Failed {
                next_at: now.saturating_add(wait).unwrap_or(now),
            },
            None => Conclusion::DeadLetter,
        }
    }

    /// This delivery with the attempt and its conclusion applied.
    #[must_use]
    pub fn concluded(&self, attempt: &Attempt, conclusion: Conclusion, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.attempt = attempt.number;
        next.updated_at = now;
        next.state = match conclusion {
            Conclusion::Succeeded => DeliveryState::Succeeded,
            Conclusion::DeadLetter => DeliveryState::DeadLetter,
            Conclusion::Failed { next_at } => {
                next.next_at = next_at;
                DeliveryState::Failed
            }
        };
        next
    }

    /// This delivery as a replay leaves it: pending, due now, with a fresh retry policy and its
    /// attempts kept. Refused (`invalid webhook delivery`) unless it is finished.
    pub fn replayed(&self, now: Timestamp) -> Result<Self> {
        if !matches!(
            self.state,
            DeliveryState::Succeeded | DeliveryState::DeadLetter
        ) {
            return Err(Error::InvalidDelivery(Context::words(format!(
                "only a succeeded or dead_letter delivery can be replayed, this one is {}",
                self.state
            ))));
        }
        Ok(Self {
            state: DeliveryState::Pending,
            replayed_at_attempt: self.attempt,
            next_at: now,
            updated_at: now,
            ..self.clone()
        })
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Done.
    Succeeded,
    /// To be tried again.
    Failed {
        /// When.
        next_at: Timestamp,
    },
    /// Given up: permanent, or the policy is exhausted.
    DeadLetter,
}

/// The default delivery id: `whdel_` and the lower-case hex of the first 16 bytes of SHA-256 over
/// tenant, event and endpoint id joined by one zero byte. One event pushed twice has one id.
pub fn default_id(tenant: &TenantId, event: &EventId, endpoint: &EndpointId) -> DeliveryId {
    let mut hash = Sha256::new();
    hash.update(tenant.as_str());
    hash.update([0]);
    hash.update(event.as_str());
    hash.update([0]);
    hash.update(endpoint.as_str());
    DeliveryId::new(format!("whdel_{}", hex::encode(&hash.finalize()[..16])))
        .expect("a prefix and 32 hex digits are a valid delivery id")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::EventDraft;

    fn event() -> Event {
        EventDraft {
            id: "evt_1".into(),
            tenant: "acme".into(),
            event_type: "invoice.paid".into(),
            payload: bytes::Bytes::from_static(b" {\"n\": 1.00}\n"),
            ..EventDraft::default()
        }
        .accept(Timestamp::UNIX_EPOCH, 1024)
        .unwrap()
    }

    fn delivery() -> Delivery {
        let event = event();
        let endpoint = EndpointId::new("main").unwrap();
        let id = default_id(&event.tenant_id, &event.id, &endpoint);
        Delivery::pending(id, &event, endpoint, None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_default_id_is_the_contracts() {
        // printf 'acme\0evt_1\0main' | sha256sum | cut -c1-32
        assert_eq!(
            delivery().id.as_str(),
            "whdel_5fe54a7806badae94ec7332ad4a45386"
        );
    }

    #[test]
    fn a_pending_delivery_starts_at_attempt_zero_and_is_due_now() {
        let delivery = delivery();
        assert_eq!(
            (delivery.state, delivery.attempt),
            (DeliveryState::Pending, 0)
        );
        assert_eq!(delivery.next_at, delivery.created_at);
        assert_eq!(delivery.updated_at, delivery.created_at);
    }

    #[test]
    fn a_delivery_is_due_when_its_event_says() {
        let mut event = event();
        let made = |event: &Event, now| {
            let endpoint = EndpointId::new("main").unwrap();
            let id = default_id(&event.tenant_id, &event.id, &endpoint);
            Delivery::pending(id, event, endpoint, None, now)
        };
        assert!(!delivery().is_scheduled());
        let at = Timestamp::from_second(60).unwrap();
        event.deliver_at = Some(at);
        let early = made(&event, Timestamp::UNIX_EPOCH);
        assert_eq!((early.next_at, early.is_scheduled()), (at, true));
        assert_eq!(early.created_at, Timestamp::UNIX_EPOCH);
        let now = Timestamp::from_second(61).unwrap();
        let late = made(&event, now);
        assert_eq!((late.next_at, late.is_scheduled()), (now, false));
    }

    #[test]
    fn a_job_survives_encoding_and_carries_the_payloads_bytes() {
        let job = delivery().job(&event());
        let decoded = JobPayload::decode(&job.payload.encode().unwrap()).unwrap();
        assert_eq!(decoded, job.payload);
    }

    #[test]
    fn conclusions_follow_outcome_and_policy() {
        let now = Timestamp::UNIX_EPOCH;
        let policy = RetryPolicy {
            max_attempts: 2,
            ..RetryPolicy::default()
        };
        let after = |number, status| Attempt::answered(number, now, Duration::ZERO, status);
        let delivery = delivery();
        assert_eq!(
            delivery.conclude(&after(1, 204), &policy, now),
            Conclusion::Succeeded
        );
        assert_eq!(
            delivery.conclude(&after(1, 404), &policy, now),
            Conclusion::DeadLetter
        );
        let next_at = now.saturating_add(Duration::from_secs(1)).unwrap();
        assert_eq!(
            delivery.conclude(&after(1, 503), &policy, now),
            Conclusion::Failed { next_at }
        );
        assert_eq!(
            delivery.conclude(&after(2, 503), &policy, now),
            Conclusion::DeadLetter
        );
    }

    #[test]
    fn a_sequence_waits_for_so_many_attempts() {
        let now = Timestamp::UNIX_EPOCH;
        let policy = RetryPolicy {
            max_attempts: 10,
            ..RetryPolicy::default()
        };
        let mut delivery = delivery();
        delivery.sequence = Some(Sequence {
            key: None,
            on_dead_letter: crate::OnDeadLetter::Skip,
            max_attempts: std::num::NonZeroU32::new(2),
        });
        let after = |number| Attempt::answered(number, now, Duration::ZERO, 503);
        let first = delivery.conclude(&after(1), &policy, now);
        assert!(matches!(first, Conclusion::Failed { .. }));
        let second = delivery.conclude(&after(2), &policy, now);
        assert_eq!(second, Conclusion::DeadLetter);
        delivery.replayed_at_attempt = 2;
        let third = delivery.conclude(&after(3), &policy, now);
        assert!(matches!(third, Conclusion::Failed { .. }));
    }

    #[test]
    fn what_a_receiver_asks_for_moves_the_next_attempt() {
        let now = Timestamp::UNIX_EPOCH;
        let asked = Some(Duration::from_secs(90));
        let attempt = Attempt::answered(1, now, Duration::ZERO, 503).asked_to_wait(asked);
        let next_at = now.saturating_add(Duration::from_secs(90)).unwrap();
        assert_eq!(
            delivery().conclude(&attempt, &RetryPolicy::default(), now),
            Conclusion::Failed { next_at }
        );
    }

    #[test]
    fn a_replay_starts_the_policy_over_and_keeps_counting_attempts() {
        let now = Timestamp::UNIX_EPOCH;
        let policy = RetryPolicy {
            max_attempts: 2,
            ..RetryPolicy::default()
        };
        let last = Attempt::answered(2, now, Duration::ZERO, 503);
        let dead = delivery().concluded(&last, Conclusion::DeadLetter, now);
        let replayed = dead.replayed(now).unwrap();
        assert_eq!(
            (replayed.state, replayed.attempt),
            (DeliveryState::Pending, 2)
        );
        let third = Attempt::answered(3, now, Duration::ZERO, 503);
        assert!(matches!(
            replayed.conclude(&third, &policy, now),
            Conclusion::Failed { .. }
        ));
        assert!(matches!(
            replayed.replayed(now),
            Err(Error::InvalidDelivery(_))
        ));
    }
}
