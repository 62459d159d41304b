//! Rows read back into the types of the domain.

use std::num::NonZeroU32;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, RowIndex};
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
use super::leases::Holdings;
use super::sequences::turn;
use super::thread::Fault;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{Record, RejectedEvent};

/// The columns that [`delivery`] reads, of deliveries `d`, tenants `t`, lanes `l` and events `e`: by their
/// place, for to look for names takes longer than to read.
macro_rules! delivery_columns {
    () => {
        "d.seq, coalesce(d.name, d.id), t.name, e.id, e.type, l.endpoint, d.state, d.attempt, d.replayed_at_attempt, \
         d.next_at, d.created_at, d.updated_at, d.resolved, d.resolver, d.lane, d.stage, d.sequence, \
         d.blocks, d.max_attempts"
    };
}
/// How many they are.
pub(super) const DELIVERY_COLUMNS: usize = 19;
/// The columns that [`event`] reads, of tenants `t` and events `e`.
macro_rules! event_columns {
    () => {
        concat!(crate::embedded::rows::event_head!(), ", e.payload")
    };
}
/// The same for who does not need the payload: it is empty.
macro_rules! event_head_columns {
    () => {
        concat!(crate::embedded::rows::event_head!(), ", x''")
    };
}
macro_rules! event_head {
    () => {
        "e.seq, e.id, t.name, e.type, e.occurred_at, e.deliver_at, e.ordering_key"
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
pub(super) use {delivery_columns, delivery_joins, event_columns, event_head, event_head_columns};

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

/// The number of the delivery in a row of [`delivery_columns`].
pub(super) fn seq(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

/// What the delivery in a row of [`delivery_columns`] is found by, be the rest as it may: its id, or its number if
/// that cannot be read.
pub(super) fn id_or_number(row: &Row<'_>) -> rusqlite::Result<String> {
    match checked(row, 1, |text| DeliveryId::new(text).ok()) {
        Some(id) => Ok(id.into()),
        None => Ok(seq(row)?.to_string()),
    }
}

/// The delivery in a row of [`delivery_columns`].
pub(super) fn delivery(row: &Row<'_>) -> Result<Delivery, Fault> {
    let seq = seq(row)?;
    let damaged = || corrupt("delivery", seq);
    Ok(Delivery {
        id: checked(row, 1, |text| DeliveryId::new(text).ok()).ok_or_else(damaged)?,
        tenant_id: checked(row, 2, |text| TenantId::new(text).ok()).ok_or_else(damaged)?,
        event_id: checked(row, 3, |text| EventId::new(text).ok()).ok_or_else(damaged)?,
        event_type: checked(row, 4, |text| EventType::new(text).ok()).ok_or_else(damaged)?,
        endpoint_id: checked(row, 5, |text| EndpointId::new(text).ok()).ok_or_else(damaged)?,
        state: state(row.get(6)?).ok_or_else(damaged)?,
        attempt: row.get(7)?,
        replayed_at_attempt: row.get(8)?,
        next_at: timestamp(row.get(9)?),
        created_at: timestamp(row.get(10)?),
        updated_at: timestamp(row.get(11)?),
        resolved: packed(row, 12, |bytes| postcard::from_bytes(bytes)).map_err(|()| damaged())?,
        resolver: packed(row, 13, plugin_use::one_from_bytes).map_err(|()| damaged())?,
        sequence: sequence(row)?,
    })
}

fn sequence(row: &Row<'_>) -> Result<Option<Sequence>, Fault> {
    let Some(name) = row.get_ref(16)?.as_str_or_null().ok().flatten() else {
        return Ok(None);
    };
    let seq = seq(row)?;
    let damaged = || corrupt("delivery", seq);
    let key = match name {
        "" => None,
        key => Some(OrderingKey::new(key).map_err(|_| damaged())?),
    };
    let most: Option<u32> = row.get(18)?;
    Ok(Some(Sequence {
        key,
        on_dead_letter: if row.get(17)? {
            OnDeadLetter::Block
        } else {
            OnDeadLetter::Skip
        },
        max_attempts: most.and_then(NonZeroU32::new),
    }))
}

/// The number of the delivery's lane.
pub(super) fn lane(row: &Row<'_>) -> Result<i64, Fault> {
    Ok(row.get(14)?)
}

/// Whose turn it is in the sequence where the delivery in a row of [`delivery_columns`] waits for its own.
pub(super) fn behind(connection: &Connection, row: &Row<'_>) -> Result<Option<DeliveryId>, Fault> {
    if row.get::<_, i64>(15)? != Stage::Behind.number() {
        return Ok(None);
    }
    let (lane, name): (i64, String) = (lane(row)?, row.get(16)?);
    let first = turn(connection, lane, &name)?;
    Ok(first.and_then(|id| DeliveryId::new(id).ok()))
}

/// The delivery in a row of [`delivery_columns`], with its attempts, and its lease if it is `held`.
pub(super) fn record(
    connection: &Connection,
    row: &Row<'_>,
    held: &Holdings,
) -> Result<Record, Fault> {
    let seq = seq(row)?;
    let mut delivery = delivery(row)?;
    let attempts = attempts(connection, seq, &delivery)?;
    let lease_until = held
        .until(seq)
        .filter(|_| !delivery.state.is_finished())
        .map(timestamp);
    if lease_until.is_some() {
        delivery.state = DeliveryState::Leased;
    }
    Ok(Record {
        delivery,
        attempts,
        lease_until,
        behind: None,
        endpoint_stalls: false,
    })
}

/// The event in a row, whose [`event_columns`] begin at `first`.
pub(super) fn event(row: &Row<'_>, first: usize) -> Result<Event, Fault> {
    let seq: i64 = row.get(first)?;
    let damaged = || corrupt("event", seq);
    let key: Option<String> = row.get(first + 6)?;
    Ok(Event {
        id: checked(row, first + 1, |text| EventId::new(text).ok()).ok_or_else(damaged)?,
        tenant_id: checked(row, first + 2, |text| TenantId::new(text).ok()).ok_or_else(damaged)?,
        event_type: checked(row, first + 3, |text| EventType::new(text).ok())
            .ok_or_else(damaged)?,
        occurred_at: checked(row, first + 4, |text| text.parse().ok()).ok_or_else(damaged)?,
        deliver_at: row.get::<_, Option<i64>>(first + 5)?.map(timestamp),
        ordering_key: key
            .map(|key| OrderingKey::new(key).map_err(|_| damaged()))
            .transpose()?,
        payload: Payload::from_stored(Bytes::from(row.get::<_, Vec<u8>>(first + 7)?)),
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

fn checked<T>(
    row: &Row<'_>,
    column: impl RowIndex,
    check: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    check(row.get_ref(column).ok()?.as_str().ok()?)
}

/// What a column holds packed, if anything.
fn packed<T>(
    row: &Row<'_>,
    column: impl RowIndex,
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

/// A number of rows as a statement takes it.
pub(super) fn limit_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
