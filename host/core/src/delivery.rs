//! Deliveries, their jobs and their states.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::attempt::{Attempt, Outcome, PluginUse};
use crate::endpoint::ResolvedEndpoint;
use crate::error::{Context, Error, Result};
use crate::event::{Event, EventType};
use crate::ids::{DeliveryId, EndpointId, EventId, TenantId};
use crate::retry::RetryPolicy;

/// Where a delivery stands.
///
/// ```text
///            lease                 accepted
/// pending ───────────▶ leased ───────────────▶ succeeded ─┐
///    ▲                 │  ▲ │                             │ replay
///    │ lease expires,  │  │ │ exhausted or permanent      │
///    │ or is released  │  │ └───────────▶ dead_letter ────┤
///    ├─────────────────┤  │                               │
///    │                 ▼  │ lease, when due               │
///    │               failed                               │
///    └────────────────────────────────────────────────────┘
/// ```
/// A lease that expires or is released puts the delivery back where it was, `pending` or `failed`.
/// No other transition exists: see [`DeliveryState::may_become`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waiting for its first attempt, or for its first since a replay.
    Pending,
    /// A worker is at it.
    Leased,
    /// Accepted by the receiver, or skipped by a plugin.
    Succeeded,
    /// Not accepted; will be tried again at `next_at`.
    Failed,
    /// Not accepted, and will not be tried again by itself.
    DeadLetter,
}

impl DeliveryState {
    /// All states, in the order of a delivery's life.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Leased,
        Self::Failed,
        Self::Succeeded,
        Self::DeadLetter,
    ];

    /// The only transitions there are.
    pub fn may_become(self, next: Self) -> bool {
        use DeliveryState::{DeadLetter, Failed, Leased, Pending, Succeeded};
        matches!(
            (self, next),
            (Pending | Failed, Leased)
                | (Leased, Pending | Failed | Succeeded | DeadLetter)
                | (DeadLetter | Succeeded, Pending)
        )
    }

    /// The name in wire formats, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.trim().replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == wanted)
            .ok_or_else(|| {
                Error::delivery_field(
                    "state",
                    "expected pending, leased, failed, succeeded or dead_letter",
                )
            })
    }
}

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
    /// Where it stands. Starts as pending.
    pub state: DeliveryState,
    /// Attempts recorded so far, over the whole life. Starts at 0.
    pub attempt: u32,
    /// The value of `attempt` when it was last replayed, and one more for each attempt that waited for
    /// a plugin to be loaded, or tried a new version of one early; the retry policy counts from there.
    pub replayed_at_attempt: u32,
    /// When it is due; meaningful while pending or failed. What failed in a plugin is due for a look earlier
    /// than for its retry, whose time its last attempt has.
    pub next_at: Timestamp,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

impl Delivery {
    /// A pending delivery of `event`, due now.
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
            state: DeliveryState::Pending,
            attempt: 0,
            replayed_at_attempt: 0,
            next_at: now,
            created_at: now,
            updated_at: now,
        }
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
        match policy.wait_after(since_replay, &self.id) {
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

/// What a queue hands to a [`crate::Handler`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Equal to the delivery id of the payload.
    pub id: DeliveryId,
    /// Equal to the tenant of the payload's event.
    pub tenant_id: TenantId,
    /// Attempts made before this one.
    pub attempt: u32,
    /// What is to be done.
    pub payload: JobPayload,
}

/// The content of a job. It holds no secret: the endpoint is loaded when the job is handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPayload {
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// Where it goes.
    pub endpoint_id: EndpointId,
    /// What is delivered.
    pub event: Event,
}

impl JobPayload {
    /// The payload as JSON, for queues that keep bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| malformed())
    }

    /// Reads what [`Self::encode`] wrote; refuses anything malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|_| malformed())
    }
}

fn malformed() -> Error {
    Error::InvalidDelivery(Context::words("the job's payload is malformed"))
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
            occurred_at: None,
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
    fn a_job_survives_encoding_and_carries_the_payloads_bytes() {
        let job = delivery().job(&event());
        let decoded = JobPayload::decode(&job.payload.encode().unwrap()).unwrap();
        assert_eq!(decoded, job.payload);
    }

    #[test]
    fn malformed_jobs_are_refused() {
        for bad in [&b""[..], b"{}", b"[]", b"{\"delivery_id\":\"d\"}", b"\xff"] {
            assert!(matches!(
                JobPayload::decode(bad),
                Err(Error::InvalidDelivery(_))
            ));
        }
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

    #[test]
    fn no_other_transition_exists() {
        use DeliveryState::{DeadLetter, Failed, Leased, Pending, Succeeded};
        let allowed = [
            (Pending, Leased),
            (Failed, Leased),
            (Leased, Pending),
            (Leased, Failed),
            (Leased, Succeeded),
            (Leased, DeadLetter),
            (DeadLetter, Pending),
            (Succeeded, Pending),
        ];
        for from in DeliveryState::ALL {
            for to in DeliveryState::ALL {
                assert_eq!(
                    from.may_become(to),
                    allowed.contains(&(from, to)),
                    "{from} → {to}"
                );
            }
        }
    }
}
