//! What deliveries are found by.
//!
//! The default id of a delivery is a digest of tenant, event and endpoint. An index of digests is written
//! all over, a page for every delivery, which is most of what a commit would write. So such a delivery is
//! unique by the numbers of its event and its lane, which grow, and its id is in an index by the age of its
//! event, of which only the newest part is written. Support looks through its parts, the newest first:
//! some 1 ms for ten million events. Other ids are unique by themselves.

use rusqlite::{Connection, OptionalExtension as _, params};
use wasmhook_core::delivery::default_id;
use wasmhook_core::{Delivery, DeliveryId, TenantId};

/// What stands for the id of a delivery where it has to be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// The id follows from event and lane.
    Derived([u8; 16]),
    /// The id itself.
    Own(&'a str),
}

impl<'a> Key<'a> {
    pub(super) fn of(delivery: &'a Delivery, event: i64, lane: i64) -> Self {
        let derived = default_id(
            &delivery.tenant_id,
            &delivery.event_id,
            &delivery.endpoint_id,
        );
        if delivery.id != derived {
            return Self::Own(delivery.id.as_str());
        }
        let mut key = [0; 16];
        key[..8].copy_from_slice(&event.to_be_bytes());
        key[8..].copy_from_slice(&lane.to_be_bytes());
        Self::Derived(key)
    }
}

/// The number of a tenant's delivery.
pub(super) fn find(
    connection: &Connection,
    tenant: &TenantId,
    id: &DeliveryId,
) -> rusqlite::Result<Option<i64>> {
    let tenant: Option<i64> = connection
        .prepare_cached("SELECT id FROM tenants WHERE name = ?1")?
        .query_row([tenant.as_str()], |row| row.get(0))
        .optional()?;
    let Some(tenant) = tenant else {
        return Ok(None);
    };
    match find_own(connection, tenant, id)? {
        Some(seq) => Ok(Some(seq)),
        None => find_derived(connection, tenant, id),
    }
}

/// The number of a tenant's delivery that is unique by its id. Up to version 3 of the tables all were.
pub(super) fn find_own(
    connection: &Connection,
    tenant: i64,
    id: &DeliveryId,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT seq FROM deliveries WHERE tenant = ?1 AND id = ?2")?
        .query_row(params![tenant, id.as_str()], |row| row.get(0))
        .optional()
}

fn find_derived(
    connection: &Connection,
    tenant: i64,
    id: &DeliveryId,
) -> rusqlite::Result<Option<i64>> {
    let parts = connection
        .prepare_cached(
            "SELECT (SELECT min(seq) FROM events) >> 13, (SELECT max(seq) FROM events) >> 13",
        )?
        .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)))?;
    let Some((first, last)) = parts else {
        return Ok(None);
    };
    let mut select = connection.prepare_cached(
        "SELECT seq FROM deliveries INDEXED BY deliveries_named
         WHERE event >> 13 = ?1 AND substr(name, 7, 11) = substr(?2, 7, 11)
            AND name IS NOT NULL AND name = ?2 AND tenant = ?3",
    )?;
    for part in (first..=last).rev() {
        let found = select
            .query_row(params![part, id.as_str(), tenant], |row| row.get(0))
            .optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
