//! Writing events with their deliveries, and refused events.

use std::collections::HashMap;

use rusqlite::{ToSql, params};
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, DeliveryState, EndpointId, Event, OrderingKey, Sequence, TenantId};

use super::clock::{nanos, timestamp};
use super::lanes::{Stage, Tally, lane_number, tenant_number};
use super::names::{self, Key};
use super::rows::state_number;
use super::schedule::Fresh;
use super::sequences::advance;
use super::thread::Fault;
use super::writer::Writer;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{EventDeliveries, RejectedEvent};

/// So many refused events are kept, the newest.
pub(super) const REJECTED_KEPT: i64 = 10_000;

pub(super) fn enqueue(
    writer: &Writer,
    batch: Vec<EventDeliveries>,
) -> Result<Vec<Enqueued>, Fault> {
    let mut call = Enqueue {
        writer,
        now: writer.clock.now(),
        tally: Tally::default(),
        tenants: HashMap::new(),
        lanes: HashMap::new(),
    };
    let mut answers = Vec::with_capacity(batch.len());
    for one in batch {
        answers.push(call.event(one)?);
    }
    call.tally.apply(writer)?;
    Ok(answers)
}

/// A call, with the numbers that it looked up: the events of a batch are mostly of a few tenants.
struct Enqueue<'a> {
    writer: &'a Writer,
    now: i64,
    tally: Tally,
    tenants: HashMap<TenantId, i64>,
    lanes: HashMap<(i64, EndpointId), i64>,
}

impl Enqueue<'_> {
    fn event(&mut self, one: EventDeliveries) -> Result<Enqueued, Fault> {
        let EventDeliveries {
            event,
            deliveries,
            extends,
        } = one;
        let tenant = self.tenant(&event.tenant_id)?;
        let new = insert_event(self.writer, tenant, &event, deliveries.is_empty(), self.now)?;
        let (number, kept) = match new {
            Some(number) => (number, Some(event_as_kept(event))),
            None if !extends => {
                return Ok(Enqueued {
                    created: 0,
                    duplicate: true,
                });
            }
            None => (
                self.known_event(tenant, &event, !deliveries.is_empty())?,
                None,
            ),
        };
        let mut created = 0;
        for delivery in deliveries {
            created += usize::from(self.delivery(tenant, number, delivery, kept.as_ref())?);
        }
        Ok(Enqueued {
            created,
            duplicate: false,
        })
    }

    /// The number of an event that is known, and that gets deliveries.
    fn known_event(&self, tenant: i64, event: &Event, gets: bool) -> Result<i64, Fault> {
        let connection = &self.writer.connection;
        let (number, bare): (i64, bool) = connection
            .prepare_cached("SELECT seq, bare FROM events WHERE tenant = ?1 AND id = ?2")?
            .query_row(params![tenant, event.id.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if bare && gets {
            connection
                .prepare_cached("UPDATE events SET bare = 0 WHERE seq = ?1")?
                .execute([number])?;
        }
        Ok(number)
    }

    fn tenant(&mut self, id: &TenantId) -> Result<i64, Fault> {
        if let Some(number) = self.tenants.get(id) {
            return Ok(*number);
        }
        let number = tenant_number(self.writer, id.as_str())?;
        self.tenants.insert(id.clone(), number);
        Ok(number)
    }

    fn lane(&mut self, tenant: i64, endpoint: &EndpointId) -> Result<i64, Fault> {
        let key = (tenant, endpoint.clone());
        if let Some(number) = self.lanes.get(&key) {
            return Ok(*number);
        }
        let number = lane_number(self.writer, tenant, endpoint.as_str())?;
        self.lanes.insert(key, number);
        Ok(number)
    }

    /// Whether it is new. `kept` is the event, if it is new too.
    fn delivery(
        &mut self,
        tenant: i64,
        event: i64,
        delivery: Delivery,
        kept: Option<&Event>,
    ) -> Result<bool, Fault> {
        let lane = self.lane(tenant, &delivery.endpoint_id)?;
        // By the store's clock, and not in its past: see `EventDeliveries`.
        let next_at = if delivery.is_scheduled() {
            nanos(delivery.next_at).max(self.now)
        } else {
            self.now
        };
        let stage = match delivery.sequence {
            None => Stage::of(DeliveryState::Pending, next_at, self.now),
            Some(_) => Stage::Behind,
        };
        // Of a known event it may be one that an older version wrote.
        let connection = &self.writer.connection;
        let known = kept.is_none() && names::find_own(connection, tenant, &delivery.id)?.is_some();
        let numbers = (tenant, lane, event);
        let times = (next_at, self.now);
        let new = if known {
            None
        } else {
            insert_delivery(self.writer, numbers, &delivery, stage, times)?
        };
        let Some(seq) = new else {
            // If the lane was made for it, it goes again.
            self.tally.touch(lane);
            return Ok(false);
        };
        if let (Some(event), Stage::Ready) = (kept, stage) {
            let fresh = Fresh {
                delivery: Delivery {
                    state: DeliveryState::Pending,
                    next_at: timestamp(next_at),
                    created_at: timestamp(self.now),
                    updated_at: timestamp(self.now),
                    ..delivery
                },
                event: event.clone(),
            };
            self.writer
                .place_fresh(&mut self.tally, lane, (next_at, seq), fresh);
        } else {
            self.writer
                .place(&mut self.tally, lane, stage, (next_at, seq));
            if let Some(sequence) = &delivery.sequence {
                advance(
                    self.writer,
                    lane,
                    sequence.name(),
                    self.now,
                    &mut self.tally,
                )?;
            }
        }
        Ok(true)
    }
}

/// Its number, if it is new.
fn insert_event(
    writer: &Writer,
    tenant: i64,
    event: &Event,
    bare: bool,
    now: i64,
) -> Result<Option<i64>, Fault> {
    let new = writer
        .connection
        .prepare_cached(
            "INSERT INTO events (tenant, id, type, occurred_at, created_at, bare, payload,
                 deliver_at, ordering_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            tenant,
            event.id.as_str(),
            event.event_type.as_str(),
            event.occurred_at.to_string(),
            now,
            bare,
            event.payload.bytes().as_ref(),
            event.deliver_at.map(nanos),
            event.ordering_key.as_ref().map(OrderingKey::as_str),
        ])?;
    Ok((new > 0).then(|| writer.connection.last_insert_rowid()))
}

/// The event as it is read back.
fn event_as_kept(event: Event) -> Event {
    Event {
        deliver_at: event.deliver_at.map(nanos).map(timestamp),
        ..event
    }
}

/// Its number, if it is new.
fn insert_delivery(
    writer: &Writer,
    (tenant, lane, event): (i64, i64, i64),
    delivery: &Delivery,
    stage: Stage,
    (next_at, now): (i64, i64),
) -> Result<Option<i64>, Fault> {
    let resolved = packed(delivery.resolved.as_ref(), postcard::to_stdvec)?;
    let asked = packed(delivery.resolver.as_ref(), plugin_use::one_to_bytes)?;
    let sequence = delivery.sequence.as_ref();
    let key = Key::of(delivery, event, lane);
    let (key, name): (&dyn ToSql, _) = match &key {
        Key::Derived(key) => (key, Some(delivery.id.as_str())),
        Key::Own(id) => (id, None),
    };
    let new = writer
        .connection
        .prepare_cached(
            "INSERT INTO deliveries (id, tenant, lane, event, state, stage, attempt,
                 replayed_at_attempt, next_at, created_at, updated_at, resolved,
                 resolver, sequence, blocks, max_attempts, name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            key,
            tenant,
            lane,
            event,
            state_number(DeliveryState::Pending),
            stage.number(),
            delivery.attempt,
            delivery.replayed_at_attempt,
            next_at,
            now,
            resolved,
            asked,
            sequence.map(Sequence::name),
            sequence.is_some_and(Sequence::blocks),
            sequence.and_then(|sequence| Some(sequence.max_attempts?.get())),
            name,
        ])?;
    Ok((new > 0).then(|| writer.connection.last_insert_rowid()))
}

fn packed<T>(
    value: Option<&T>,
    pack: impl FnOnce(&T) -> postcard::Result<Vec<u8>>,
) -> Result<Option<Vec<u8>>, StoreError> {
    value.map(pack).transpose().map_err(|error| {
        StoreError::Configuration(format!("a part of a delivery cannot be kept: {error}"))
    })
}

pub(super) fn reject(writer: &Writer, events: &[RejectedEvent]) -> Result<(), Fault> {
    let mut insert = writer.connection.prepare_cached(
        "INSERT INTO rejected (at, source, event_id, tenant, type, payload_bytes, code, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for event in events {
        insert.execute(params![
            event.at.to_string(),
            event.source,
            event.event_id,
            event.tenant,
            event.event_type,
            i64::try_from(event.payload_bytes).unwrap_or(i64::MAX),
            event.code,
            event.reason,
        ])?;
    }
    writer
        .connection
        .prepare_cached("DELETE FROM rejected WHERE seq <= (SELECT max(seq) FROM rejected) - ?1")?
        .execute([REJECTED_KEPT])?;
    Ok(())
}
