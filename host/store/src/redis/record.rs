//! Recording outcomes, giving leases back, and replay.

use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::{DeliveryId, DeliveryState, TenantId};

use super::enqueue::sequence_arg;
use super::{RECORD, RedisStore, codec, micros};
use crate::error::StoreError;
use crate::queue::{Leased, Outcome, Recorded};
use crate::stalling::Reaction;

/// The ends that a lease may have, as the functions call them: in upper case when the delivery was
/// waiting for another attempt before, and so is in the index of those.
fn kind(outcome: &Outcome) -> Option<&'static str> {
    let again = outcome.leased.delivery.state == DeliveryState::Failed;
    match (outcome.delivery.state, again) {
        (DeliveryState::Succeeded, false) => Some("s"),
        (DeliveryState::Succeeded, true) => Some("S"),
        (DeliveryState::DeadLetter, false) => Some("x"),
        (DeliveryState::DeadLetter, true) => Some("X"),
        (DeliveryState::Failed, false) => Some("f"),
        (DeliveryState::Failed, true) => Some("F"),
        (DeliveryState::Pending | DeliveryState::Leased, _) => None,
    }
}

impl RedisStore {
    pub(super) async fn record_outcomes(
        &self,
        outcomes: &[Outcome],
    ) -> Result<Vec<Recorded>, StoreError> {
        if let Some(outcome) = outcomes.iter().find(|outcome| kind(outcome).is_none()) {
            return Err(StoreError::Refused {
                store: self.link.name().to_owned(),
                operation: "record",
                reason: format!("an attempt cannot end as {}", outcome.delivery.state),
            });
        }
        let now = Timestamp::now();
        let calls = self.group(
            "record",
            outcomes,
            true,
            |outcome| &outcome.leased.delivery.tenant_id,
            |outcome| RECORD * (2 + outcome.leased.attempts.len()),
            |call, outcome| {
                let delivery = &outcome.delivery;
                let leased = &outcome.leased;
                let tenant = delivery.tenant_id.as_str().as_bytes();
                let id = delivery.id.as_str().as_bytes();
                let mut head = Vec::with_capacity(128);
                head.extend_from_slice(kind(outcome).unwrap_or("x").as_bytes());
                head.push(match Reaction::of(&outcome.attempt) {
                    Reaction::Answered => b'a',
                    Reaction::Stalled => b't',
                    Reaction::Unknown => b'n',
                });
                let sequence = leased.delivery.sequence.as_ref();
                // It stays its turn until it is finished.
                let left = match (sequence, delivery.state) {
                    (Some(sequence), DeliveryState::DeadLetter) if sequence.blocks() => {
                        head.push(b'!');
                        None
                    }
                    (Some(sequence), DeliveryState::Succeeded | DeliveryState::DeadLetter) => {
                        head.push(b'-');
                        Some(sequence.name())
                    }
                    _ => None,
                };
                let number = if delivery.state == DeliveryState::Failed {
                    let wait = delivery.next_at.duration_since(now);
                    let wait = Duration::try_from(wait).unwrap_or_default();
                    micros(wait).div_ceil(1000).to_string()
                } else {
                    delivery.attempt.to_string()
                };
                let endpoint = delivery.endpoint_id.as_str();
                for part in [
                    leased.token.0.as_ref(),
                    number.as_str(),
                    delivery.tenant_id.as_str(),
                    endpoint,
                ] {
                    head.push(0);
                    head.extend_from_slice(part.as_bytes());
                }
                if let Some(key) = left {
                    head.push(0);
                    head.extend_from_slice(key.as_bytes());
                }
                call.head(&head);
                call.parts(&[tenant, b"\0", id]);
                let record = codec::pack_record(delivery, &leased.attempts, Some(&outcome.attempt));
                call.arg(&record);
            },
        );
        let mut answers = vec![Recorded::LeaseLost; outcomes.len()];
        let _turn = match &self.recording {
            Some(turns) => Some(turns.lock().await),
            None => None,
        };
        self.run_all("record", calls, |places, mut reply| {
            let work = reply.int()? == 1;
            if let (true, Some(place)) = (work, places.first()) {
                let tenant = &outcomes[*place].delivery.tenant_id;
                self.outlook.rest(self.keys.shard_of(tenant));
            }
            for place in places {
                if reply.int()? == 1 {
                    answers[*place] = Recorded::Written;
                }
            }
            Some(())
        })
        .await?;
        Ok(answers)
    }

    pub(super) async fn release_leases(&self, leases: &[Leased]) -> Result<(), StoreError> {
        let calls = self.group(
            "release",
            leases,
            true,
            |leased| &leased.delivery.tenant_id,
            |_| RECORD,
            |call, leased| {
                let tenant = leased.delivery.tenant_id.as_str().as_bytes();
                let endpoint = leased.delivery.endpoint_id.as_str().as_bytes();
                let id = leased.delivery.id.as_str().as_bytes();
                call.parts(&[tenant, b"\0", endpoint]);
                call.arg(id);
                call.parts(&[tenant, b"\0", id]);
                call.arg(leased.token.0.as_bytes()).arg(1);
            },
        );
        self.run_all("release", calls, |_, _| Some(())).await?;
        for leased in leases {
            self.outlook
                .rest(self.keys.shard_of(&leased.delivery.tenant_id));
        }
        Ok(())
    }

    pub(super) async fn skip_blocking(
        &self,
        tenant: &TenantId,
        id: &DeliveryId,
    ) -> Result<(), StoreError> {
        let shard = self.keys.shard_of(tenant);
        let Some((_, record)) = self.read(tenant, id).await? else {
            return Err(StoreError::NotFound);
        };
        let delivery = record.delivery;
        if let Some(sequence) = &delivery.sequence {
            let mut call = self.call("skip", shard);
            call.arg(&self.channel).arg(&self.me);
            call.arg(tenant.as_str()).arg(id.as_str());
            let endpoint = delivery.endpoint_id.as_str().as_bytes();
            call.parts(&[tenant.as_str().as_bytes(), b"\0", endpoint]);
            call.arg(sequence.name());
            if self.run("skip", &call).await?.int() == Some(1) {
                self.outlook.work(shard);
                return Ok(());
            }
        }
        Err(StoreError::NotBlocking(delivery.state))
    }

    pub(super) async fn replay_finished(
        &self,
        tenant: &TenantId,
        id: &DeliveryId,
    ) -> Result<(), StoreError> {
        let shard = self.keys.shard_of(tenant);
        // Only another replay, or retention, can come between reading and moving.
        for _ in 0..8 {
            let Some((bytes, record)) = self.read(tenant, id).await? else {
                return Err(StoreError::NotFound);
            };
            let replayed = record
                .delivery
                .replayed(Timestamp::now())
                .map_err(|_| StoreError::NotFinished(record.delivery.state))?;
            let packed = codec::pack_record(&replayed, &record.attempts, None);
            let mut call = self.call("replay", shard);
            call.arg(&self.channel).arg(&self.me);
            call.arg(tenant.as_str()).arg(id.as_str());
            let endpoint = replayed.endpoint_id.as_str().as_bytes();
            call.parts(&[tenant.as_str().as_bytes(), b"\0", endpoint]);
            call.arg(bytes.as_ref()).arg(&packed);
            sequence_arg(&mut call, &replayed);
            let mut reply = self.run("replay", &call).await?;
            if reply.int() == Some(1) {
                self.outlook.work(shard);
                return Ok(());
            }
        }
        Err(StoreError::Refused {
            store: self.link.name().to_owned(),
            operation: "replay",
            reason: "the delivery keeps changing".to_owned(),
        })
    }
}
