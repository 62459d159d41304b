//! Rows read back into the types of the domain.

use std::num::NonZeroU32;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, EndpointId, Event, EventId, EventType, OnDeadLetter,
    OrderingKey, Payload, Sequence, TenantId,
};

use super::clock::timestamp;
use super::lanes::Stage;
use super::sequences::turn;
use super::thread::Fault;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{Record, RejectedEvent};

/// The columns that [`delivery`] reads, of deliveries `d`, tenants `t`, lanes `l` and events `e`.
macro_rules! delivery_columns {
    () => {
        "d.seq, d.id, t.name AS tenant, e.id AS event_id, e.type, l.endpoint, d.state, d.attempt, \
         d.replayed_at_attempt, d.next_at, d.created_at, d.updated_at, d.lease_until, d.resolved, \
         d.resolver, d.lane, d.stage, d.sequence, d.blocks, d.max_attempts"
    };
}
/// What [`delivery_columns`] are read from, after `deliveries d`.
macro_rules! delivery_joins {
    () => {
        " CROSS JOIN events e ON e.seq = d.event \
          CROSS JOIN lanes l ON l.id = d.lane \
          CROSS JOIN tenants t ON t.id = d.tenant "
    };
}
pub(super) use {delivery_columns, delivery_joins};

/// The state's number in the table.
pub(super) fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Leased => 1,
        DeliveryState::Failed => 2,
        DeliveryState::Succeeded => 3,
        DeliveryState::DeadLetter => 4,
    }
}

/// The state with this number.
pub(super) fn state(number: i64) -> Option<DeliveryState> {
    DeliveryState::ALL
        .into_iter()
        .find(|state| state_number(*state) == number)
}

/// The delivery in a row of [`delivery_columns`].
pub(super) fn delivery(row: &Row<'_>) -> Result<Delivery, Fault> {
    let seq: i64 = row.get("seq")?;
    let damaged = || corrupt("delivery", seq);
    Ok(Delivery {
        id: checked(row, "id", |text| DeliveryId::new(text).ok()).ok_or_else(damaged)?,
        tenant_id: checked(row, "tenant", |text| TenantId::new(text).ok()).ok_or_else(damaged)?,
        event_id: checked(row, "event_id", |text| EventId::new(text).ok()).ok_or_else(damaged)?,
        event_type: checked(row, "type", |text| EventType::new(text).ok()).ok_or_else(damaged)?,
        endpoint_id: checked(row, "endpoint", |text| EndpointId::new(text).ok())
            .ok_or_else(damaged)?,
        resolved: packed(row, "resolved", |bytes| postcard::from_bytes(bytes))
            .map_err(|()| damaged())?,
        resolver: packed(row, "resolver", plugin_use::one_from_bytes).map_err(|()| damaged())?,
        sequence: sequence(row)?,
        state: state(row.get("state")?).ok_or_else(damaged)?,
        attempt: row.get("attempt")?,
        replayed_at_attempt: row.get("replayed_at_attempt")?,
        next_at: timestamp(row.get("next_at")?),
        created_at: timestamp(row.get("created_at")?),
        updated_at: timestamp(row.get("updated_at")?),
    })
}

fn sequence(row: &Row<'_>) -> Result<Option<Sequence>, Fault> {
    let Some(name) = row.get_ref("sequence")?.as_str_or_null().ok().flatten() else {
        return Ok(None);
    };
    let seq: i64 = row.get("seq")?;
    let damaged = || corrupt("delivery", seq);
    let key = match name {
        "" => None,
        key => Some(OrderingKey::new(key).map_err(|_| damaged())?),
    };
    let most: Option<u32> = row.get("max_attempts")?;
    Ok(Some(Sequence {
        key,
        on_dead_letter: if row.get("blocks")? {
            OnDeadLetter::Block
        } else {
            OnDeadLetter::Skip
        },
        max_attempts: most.and_then(NonZeroU32::new),
    }))
}

/// Whose turn it is in the sequence where the delivery in a row waits for its own.
pub(super) fn behind(connection: &Connection, row: &Row<'_>) -> Result<Option<DeliveryId>, Fault> {
    if row.get::<_, i64>("stage")? != Stage::Behind.number() {
        return Ok(None);
    }
    let (lane, name): (i64, String) = (row.get("lane")?, row.get("sequence")?);
    let first = turn(connection, lane, &name)?;
    Ok(first.and_then(|id| DeliveryId::new(id).ok()))
}

/// The delivery in a row, with its attempts and its lease.
pub(super) fn record(connection: &Connection, row: &Row<'_>) -> Result<Record, Fault> {
    let delivery = delivery(row)?;
    let attempts = attempts(connection, row.get("seq")?, &delivery)?;
    Ok(Record {
        delivery,
        attempts,
        lease_until: row.get::<_, Option<i64>>("lease_until")?.map(timestamp),
        behind: None,
    })
}

/// The event with the columns `event_id`, `tenant`, `type`, `occurred_at`, `deliver_at`, `ordering_key` and
/// `payload`.
pub(super) fn event(row: &Row<'_>) -> Result<Event, Fault> {
    let seq: i64 = row.get("event")?;
    let damaged = || corrupt("event", seq);
    Ok(Event {
        id: checked(row, "event_id", |text| EventId::new(text).ok()).ok_or_else(damaged)?,
        tenant_id: checked(row, "tenant", |text| TenantId::new(text).ok()).ok_or_else(damaged)?,
        event_type: checked(row, "type", |text| EventType::new(text).ok()).ok_or_else(damaged)?,
        payload: Payload::from_stored(Bytes::from(row.get::<_, Vec<u8>>("payload")?)),
        occurred_at: checked(row, "occurred_at", |text| text.parse().ok()).ok_or_else(damaged)?,
        deliver_at: row.get::<_, Option<i64>>("deliver_at")?.map(timestamp),
        ordering_key: optional::<String>(row, "ordering_key")?
            .map(|key| OrderingKey::new(key).map_err(|_| damaged()))
            .transpose()?,
    })
}

/// The attempts of a delivery, oldest first.
pub(super) fn attempts(
    connection: &Connection,
    seq: i64,
    delivery: &Delivery,
) -> Result<Vec<Attempt>, Fault> {
    if delivery.attempt == 0 {
        return Ok(Vec::new());
    }
    let mut statement =
        connection.prepare_cached("SELECT * FROM attempts WHERE delivery = ?1 ORDER BY number")?;
    let mut rows = statement.query([seq])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(attempt(row, seq)?);
    }
    Ok(attempts)
}

fn attempt(row: &Row<'_>, seq: i64) -> Result<Attempt, Fault> {
    let damaged = || corrupt("attempt of delivery", seq);
    let plugins = packed(row, "plugins", plugin_use::from_bytes).map_err(|()| damaged())?;
    let error_class = match optional::<String>(row, "error_class")? {
        Some(name) => Some(named(&name).ok_or_else(damaged)?),
        None => None,
    };
    let next_at = match optional::<String>(row, "next_at")? {
        Some(text) => Some(text.parse().map_err(|_| damaged())?),
        None => None,
    };
    Ok(Attempt {
        number: row.get("number")?,
        at: checked(row, "at", |text| text.parse::<Timestamp>().ok()).ok_or_else(damaged)?,
        duration_ms: u64::try_from(row.get::<_, i64>("duration_ms")?).unwrap_or(0),
        outcome: checked(row, "outcome", named).ok_or_else(damaged)?,
        status_code: optional(row, "status_code")?,
        retryable: row.get("retryable")?,
        error_class,
        error: optional(row, "error")?,
        plugins: plugins.unwrap_or_default(),
        response_excerpt: optional(row, "response_excerpt")?,
        next_at,
        wait: None,
    })
}

/// The refused event in a row.
pub(super) fn rejected(row: &Row<'_>) -> Result<RejectedEvent, Fault> {
    let seq: i64 = row.get("seq")?;
    Ok(RejectedEvent {
        at: checked(row, "at", |text| text.parse().ok())
            .ok_or_else(|| corrupt("rejected event", seq))?,
        source: row.get("source")?,
        event_id: row.get("event_id")?,
        tenant: row.get("tenant")?,
        event_type: row.get("type")?,
        payload_bytes: usize::try_from(row.get::<_, i64>("payload_bytes")?).unwrap_or(0),
        code: row.get("code")?,
        reason: row.get("reason")?,
    })
}

/// A record that cannot be read.
pub(super) fn corrupt(kind: &str, seq: i64) -> Fault {
    Fault::Store(StoreError::Corrupt(format!("{kind} {seq}")))
}

fn checked<T>(row: &Row<'_>, column: &str, check: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    check(row.get_ref(column).ok()?.as_str().ok()?)
}

/// What a column holds packed, if anything.
fn packed<T>(
    row: &Row<'_>,
    column: &str,
    unpack: impl FnOnce(&[u8]) -> postcard::Result<T>,
) -> Result<Option<T>, ()> {
    let bytes = row.get_ref(column).map_err(drop)?.as_blob_or_null();
    let bytes = bytes.map_err(drop)?;
    bytes.map(|bytes| unpack(bytes).map_err(drop)).transpose()
}

fn optional<T: FromSql>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    row.get(column)
}

/// A value of an enum by the name it has in JSON.
fn named<T: for<'de> Deserialize<'de>>(name: &str) -> Option<T> {
    T::deserialize(IntoDeserializer::<ValueError>::into_deserializer(name)).ok()
}
