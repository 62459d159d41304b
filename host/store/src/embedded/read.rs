//! Reads, on a connection of their own, so that none waits for a commit.

use rusqlite::{Connection, OptionalExtension as _, params};
use wasmhook_core::{DeliveryId, DeliveryState, Event, EventId, TenantId};

use super::lease::limit_number;
use super::rows::{self, delivery_columns, delivery_joins, state_number};
use super::thread::{Fault, Session};
use crate::error::StoreError;
use crate::queue::{Backlog, Cursor, Filter, Page, Record, RejectedEvent};

/// The connection that reads.
pub(super) struct Reader {
    pub(super) connection: Connection,
}

impl Session for Reader {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn after(&self, _committed: bool) {}
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Something can be leased now.
    Ready,
    /// A retry becomes due or a lease ends at this time.
    At(i64),
    /// Nothing is left to do.
    None,
}

pub(super) fn work(reader: &Reader) -> Result<Work, Fault> {
    let open = reader
        .connection
        .prepare_cached("SELECT 1 FROM lanes INDEXED BY lanes_open WHERE open LIMIT 1")?
        .exists([])?;
    if open {
        return Ok(Work::Ready);
    }
    Ok(next_change(&reader.connection)?.map_or(Work::None, Work::At))
}

/// When the next retry becomes due or the next lease ends.
pub(super) fn next_change(connection: &Connection) -> Result<Option<i64>, Fault> {
    let due: Option<i64> = connection
        .prepare_cached(
            "SELECT next_at FROM deliveries INDEXED BY deliveries_delayed
             WHERE stage = 1 ORDER BY next_at LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    let ends: Option<i64> = connection
        .prepare_cached(
            "SELECT lease_until FROM deliveries INDEXED BY deliveries_leased
             WHERE stage = 2 ORDER BY lease_until LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(due.into_iter().chain(ends).min())
}

pub(super) fn known(reader: &Reader, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, Fault> {
    let mut statement = reader.connection.prepare_cached(
        "SELECT 1 FROM events WHERE id = ?2 AND tenant = (SELECT id FROM tenants WHERE name = ?1)",
    )?;
    let mut known = Vec::with_capacity(events.len());
    for (tenant, event) in events {
        known.push(statement.exists(params![tenant.as_str(), event.as_str()])?);
    }
    Ok(known)
}

pub(super) fn get(
    reader: &Reader,
    tenant: &TenantId,
    id: &DeliveryId,
) -> Result<Option<Record>, Fault> {
    let mut statement = reader.connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM deliveries d",
        delivery_joins!(),
        "WHERE d.id = ?2 AND d.tenant = (SELECT id FROM tenants WHERE name = ?1)",
    ))?;
    let mut rows = statement.query(params![tenant.as_str(), id.as_str()])?;
    match rows.next()? {
        Some(row) => {
            let behind = rows::behind(&reader.connection, row)?;
            let record = rows::record(&reader.connection, row)?;
            Ok(Some(Record { behind, ..record }))
        }
        None => Ok(None),
    }
}

pub(super) fn event(
    reader: &Reader,
    tenant: &TenantId,
    id: &EventId,
) -> Result<Option<Event>, Fault> {
    let mut statement = reader.connection.prepare_cached(
        "SELECT e.seq AS event, e.id AS event_id, t.name AS tenant, e.type, e.occurred_at, e.deliver_at,
                e.ordering_key, e.payload
         FROM tenants t CROSS JOIN events e ON e.tenant = t.id
         WHERE t.name = ?1 AND e.id = ?2",
    )?;
    let mut rows = statement.query(params![tenant.as_str(), id.as_str()])?;
    match rows.next()? {
        Some(row) => rows::event(row).map(Some),
        None => Ok(None),
    }
}

pub(super) fn list(reader: &Reader, filter: &Filter) -> Result<Page, Fault> {
    let before = match &filter.cursor {
        Some(Cursor(text)) => text.parse().map_err(|_| {
            StoreError::Configuration("the cursor is not one that this store gave".to_owned())
        })?,
        None => i64::MAX,
    };
    // One more than asked for tells whether there is a next page.
    let wanted = filter.limit.saturating_add(1);
    let mut found = newest(reader, &filter.tenant, filter.state, before, wanted)?;
    let more = found.len() > filter.limit;
    found.truncate(filter.limit);
    let mut statement = reader.connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM deliveries d",
        delivery_joins!(),
        "WHERE d.seq = ?1",
    ))?;
    let mut records = Vec::with_capacity(found.len());
    for seq in &found {
        let mut rows = statement.query([seq])?;
        if let Some(row) = rows.next()? {
            records.push(rows::record(&reader.connection, row)?);
        }
    }
    Ok(Page {
        records,
        next: found
            .last()
            .filter(|_| more)
            .map(|seq| Cursor(seq.to_string())),
    })
}

/// The numbers of the tenant's newest deliveries in this state, or in any.
fn newest(
    reader: &Reader,
    tenant: &TenantId,
    state: Option<DeliveryState>,
    before: i64,
    limit: usize,
) -> Result<Vec<i64>, Fault> {
    // States that most deliveries pass through have no index, for it would be written each time:
    // they are picked out of all of the tenant's.
    let (index, condition) = match state {
        None => ("deliveries_tenant", "?3 IS NULL"),
        Some(DeliveryState::Pending | DeliveryState::Succeeded) => {
            ("deliveries_tenant", "state = ?3")
        }
        Some(DeliveryState::Failed | DeliveryState::DeadLetter) => {
            ("deliveries_troubled", "state = ?3 AND state IN (2, 4)")
        }
        Some(DeliveryState::Leased) => ("deliveries_leased", "state = ?3 AND stage = 2"),
    };
    let mut statement = reader.connection.prepare_cached(&format!(
        "SELECT seq FROM deliveries INDEXED BY {index}
         WHERE tenant = (SELECT id FROM tenants WHERE name = ?1) AND seq < ?2 AND {condition}
         ORDER BY seq DESC LIMIT ?4"
    ))?;
    let rows = statement.query_map(
        params![
            tenant.as_str(),
            before,
            state.map(state_number),
            limit_number(limit)
        ],
        |row| row.get(0),
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn tenants(reader: &Reader) -> Result<Vec<TenantId>, Fault> {
    let mut statement = reader.connection.prepare_cached(
        "SELECT id, name FROM tenants
         WHERE EXISTS (SELECT 1 FROM lanes WHERE lanes.tenant = tenants.id) ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    let mut tenants = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let id = row.get(0)?;
        tenants.push(TenantId::new(name).map_err(|_| rows::corrupt("tenant", id))?);
    }
    Ok(tenants)
}

pub(super) fn rejected(reader: &Reader, limit: usize) -> Result<Vec<RejectedEvent>, Fault> {
    let mut statement = reader
        .connection
        .prepare_cached("SELECT * FROM rejected ORDER BY seq DESC LIMIT ?1")?;
    let mut rows = statement.query([limit_number(limit)])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(rows::rejected(row)?);
    }
    Ok(events)
}

/// The size of the database; what its log holds is not counted.
pub(super) fn bytes(reader: &Reader) -> Result<u64, Fault> {
    let bytes: i64 = reader
        .connection
        .prepare_cached(
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

pub(super) fn backlog(reader: &Reader) -> Result<Backlog, Fault> {
    let counts = reader
        .connection
        .prepare_cached(
            "SELECT coalesce(sum(ready + delayed + behind), 0), coalesce(sum(in_flight), 0),
                    coalesce(sum(succeeded), 0), coalesce(sum(dead_letter + blocking), 0)
             FROM lanes",
        )?
        .query_row([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?])
        })?;
    let [waiting, leased, succeeded, dead_letter] =
        counts.map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Backlog {
        waiting,
        leased,
        succeeded,
        dead_letter,
    })
}
