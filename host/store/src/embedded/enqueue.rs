//! Writing events with their deliveries, and refused events.

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, DeliveryState, OrderingKey, Sequence};

use super::clock::nanos;
use super::lanes::{Stage, Tally, lane_number, tenant_number};
use super::rows::state_number;
use super::sequences::advance;
use super::thread::Fault;
use super::writer::Writer;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{EventDeliveries, RejectedEvent};

/// So many refused events are kept, the newest.
pub(super) const REJECTED_KEPT: i64 = 10_000;

pub(super) fn enqueue(writer: &Writer, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, Fault> {
    let now = writer.clock.now();
    let mut tally = Tally::default();
    let mut answers = Vec::with_capacity(batch.len());
    for one in batch {
        answers.push(enqueue_one(writer, one, now, &mut tally)?);
    }
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(answers)
}

fn enqueue_one(
    writer: &Writer,
    one: &EventDeliveries,
    now: i64,
    tally: &mut Tally,
) -> Result<Enqueued, Fault> {
    let tenant = tenant_number(writer, one.event.tenant_id.as_str())?;
    let known: Option<(i64, bool)> = writer
        .connection
        .prepare_cached("SELECT seq, bare FROM events WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![tenant, one.event.id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let event = match known {
        Some(_) if !one.extends => {
            return Ok(Enqueued {
                created: 0,
                duplicate: true,
            });
        }
        Some((event, bare)) => {
            if bare && !one.deliveries.is_empty() {
                writer
                    .connection
                    .prepare_cached("UPDATE events SET bare = 0 WHERE seq = ?1")?
                    .execute([event])?;
            }
            event
        }
        None => insert_event(writer, tenant, one, now)?,
    };
    let mut created = 0;
    for delivery in &one.deliveries {
        created += usize::from(insert_delivery(
            writer, tenant, event, delivery, now, tally,
        )?);
    }
    Ok(Enqueued {
        created,
        duplicate: false,
    })
}

fn insert_event(
    writer: &Writer,
    tenant: i64,
    one: &EventDeliveries,
    now: i64,
) -> Result<i64, Fault> {
    let event = &one.event;
    writer
        .connection
        .prepare_cached(
            "INSERT INTO events (tenant, id, type, occurred_at, created_at, bare, payload,
                 deliver_at, ordering_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            tenant,
            event.id.as_str(),
            event.event_type.as_str(),
            event.occurred_at.to_string(),
            now,
            one.deliveries.is_empty(),
            event.payload.bytes().as_ref(),
            event.deliver_at.map(nanos),
            event.ordering_key.as_ref().map(OrderingKey::as_str),
        ])?;
    Ok(writer.connection.last_insert_rowid())
}

/// Whether it is new.
fn insert_delivery(
    writer: &Writer,
    tenant: i64,
    event: i64,
    delivery: &Delivery,
    now: i64,
    tally: &mut Tally,
) -> Result<bool, Fault> {
    let known = writer
        .connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE tenant = ?1 AND id = ?2")?
        .exists(params![tenant, delivery.id.as_str()])?;
    if known {
        return Ok(false);
    }
    let lane = lane_number(writer, tenant, delivery.endpoint_id.as_str())?;
    let resolved = packed(delivery.resolved.as_ref(), postcard::to_stdvec)?;
    let asked = packed(delivery.resolver.as_ref(), plugin_use::one_to_bytes)?;
    // By the store's clock, and not in its past: see `EventDeliveries`.
    let next_at = if delivery.is_scheduled() {
        nanos(delivery.next_at).max(now)
    } else {
        now
    };
    let sequence = delivery.sequence.as_ref();
    let stage = match sequence {
        None => Stage::of(DeliveryState::Pending, next_at, now),
        Some(_) => Stage::Behind,
    };
    writer
        .connection
        .prepare_cached(
            "INSERT INTO deliveries (id, tenant, lane, event, state, stage, attempt,
                 replayed_at_attempt, next_at, created_at, updated_at, resolved,
                 resolver, sequence, blocks, max_attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            delivery.id.as_str(),
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
        ])?;
    tally.enter(lane, stage);
    if let Some(sequence) = sequence {
        advance(writer, lane, sequence.name(), now, tally)?;
    }
    Ok(true)
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
