//! Reads, on a connection of their own, so that none waits for a commit.

use rusqlite::{Connection, params};
use wasmhook_core::{DeliveryId, DeliveryState, Event, EventId, TenantId};

use super::leases::Holdings;
use super::names;
use super::rows::{
    self, delivery_columns, delivery_joins, event_columns, limit_number, state_number,
};
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
    held: &Holdings,
) -> Result<Option<(Record, i64)>, Fault> {
    let Some(seq) = names::find(&reader.connection, tenant, id)? else {
        return Ok(None);
    };
    let mut statement = reader.connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM deliveries d",
        delivery_joins!(),
        "WHERE d.seq = ?1",
    ))?;
    let mut rows = statement.query([seq])?;
    match rows.next()? {
        Some(row) => {
            let behind = rows::behind(&reader.connection, row)?;
            let record = rows::record(&reader.connection, row, held)?;
            Ok(Some((Record { behind, ..record }, rows::lane(row)?)))
        }
        None => Ok(None),
    }
}

pub(super) fn event(
    reader: &Reader,
    tenant: &TenantId,
    id: &EventId,
) -> Result<Option<Event>, Fault> {
    let mut statement = reader.connection.prepare_cached(concat!(
        "SELECT ",
        event_columns!(),
        " FROM tenants t CROSS JOIN events e ON e.tenant = t.id WHERE t.name = ?1 AND e.id = ?2",
    ))?;
    let mut rows = statement.query(params![tenant.as_str(), id.as_str()])?;
    match rows.next()? {
        Some(row) => rows::event(row, 0).map(Some),
        None => Ok(None),
    }
}

pub(super) fn list(reader: &Reader, filter: &Filter, held: &Holdings) -> Result<Page, Fault> {
    let before = match &filter.cursor {
        Some(Cursor(text)) => text.parse().map_err(|_| {
            StoreError::Configuration("the cursor is not one that this store gave".to_owned())
        })?,
        None => i64::MAX,
    };
    // One more than asked for tells whether there is a next page.
    let wanted = filter.limit.saturating_add(1);
    let mut found = newest(reader, filter, before, wanted, held)?;
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
            match rows::record(&reader.connection, row, held) {
                Ok(record) => records.push(record),
                Err(fault) if fault.is_of_row() => {
                    tracing::error!(number = seq, "a listed record cannot be read");
                }
                Err(fault) => return Err(fault),
            }
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

/// The numbers of the tenant's newest deliveries in the state asked for, or in any.
fn newest(
    reader: &Reader,
    filter: &Filter,
    before: i64,
    limit: usize,
    held: &Holdings,
) -> Result<Vec<i64>, Fault> {
    // States that most deliveries pass through have no index, for it would be written each time:
    // they are picked out of all of the tenant's.
    let (index, condition) = match filter.state {
        None => ("deliveries_tenant", "?3 IS NULL"),
        Some(DeliveryState::Pending | DeliveryState::Succeeded) => {
            ("deliveries_tenant", "state = ?3")
        }
        Some(DeliveryState::Failed | DeliveryState::DeadLetter) => {
            ("deliveries_troubled", "state = ?3 AND state IN (2, 4)")
        }
        Some(DeliveryState::Leased) => return newest_held(reader, filter, before, limit, held),
    };
    let mut statement = reader.connection.prepare_cached(&format!(
        "SELECT seq FROM deliveries INDEXED BY {index}
         WHERE tenant = (SELECT id FROM tenants WHERE name = ?1) AND seq < ?2 AND {condition}
         ORDER BY seq DESC"
    ))?;
    let open = matches!(
        filter.state,
        Some(DeliveryState::Pending | DeliveryState::Failed)
    );
    let rows = statement.query_map(
        params![
            filter.tenant.as_str(),
            before,
            filter.state.map(state_number)
        ],
        |row| row.get(0),
    )?;
    let found = rows.filter(|seq| match seq {
        // It is leased, which the file does not say.
        Ok(seq) => !open || held.until(*seq).is_none(),
        Err(_) => true,
    });
    Ok(found.take(limit).collect::<rusqlite::Result<_>>()?)
}

/// The numbers of the tenant's newest deliveries that somebody holds.
fn newest_held(
    reader: &Reader,
    filter: &Filter,
    before: i64,
    limit: usize,
    held: &Holdings,
) -> Result<Vec<i64>, Fault> {
    let mut open = reader.connection.prepare_cached(
        "SELECT 1 FROM deliveries
         WHERE seq = ?1 AND tenant = (SELECT id FROM tenants WHERE name = ?2) AND state IN (0, 2)",
    )?;
    let mut found = Vec::new();
    for seq in held.newest_first() {
        if found.len() < limit
            && seq < before
            && open.exists(params![seq, filter.tenant.as_str()])?
        {
            found.push(seq);
        }
    }
    Ok(found)
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

pub(super) fn backlog(reader: &Reader, leased: usize, stalling: usize) -> Result<Backlog, Fault> {
    let counts = reader
        .connection
        .prepare_cached(
            "SELECT coalesce(sum(ready + delayed + behind), 0), coalesce(sum(succeeded), 0),
                    coalesce(sum(dead_letter + blocking), 0)
             FROM lanes",
        )?
        .query_row([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?])
        })?;
    let [open, succeeded, dead_letter] = counts.map(|count| u64::try_from(count).unwrap_or(0));
    let leased = u64::try_from(leased).unwrap_or(0);
    Ok(Backlog {
        waiting: open.saturating_sub(leased),
        leased,
        succeeded,
        dead_letter,
        stalling_endpoints: u64::try_from(stalling).unwrap_or(0),
    })
}
