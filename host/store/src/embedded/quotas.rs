//! What tenants may take of what is in flight.

use std::num::NonZeroU32;

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::{Quota, TenantId};

use super::thread::Fault;
use super::writer::Writer;

/// How many more deliveries the tenant may have in flight; `None` if it has no cap.
pub(super) fn room(writer: &Writer, tenant: i64) -> Result<Option<usize>, Fault> {
    let left: Option<i64> = writer
        .connection
        .prepare_cached(
            "SELECT q.max_in_flight - (SELECT coalesce(sum(in_flight), 0) FROM lanes WHERE tenant = ?1)
             FROM quotas q WHERE q.tenant = (SELECT name FROM tenants WHERE id = ?1)
                AND q.max_in_flight IS NOT NULL",
        )?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    Ok(left.map(|left| usize::try_from(left).unwrap_or(0)))
}

/// How many turns the tenant gets for one of another.
pub(super) fn weight(writer: &Writer, tenant: i64) -> Result<usize, Fault> {
    let weight: Option<u8> = writer
        .connection
        .prepare_cached(
            "SELECT weight FROM quotas WHERE tenant = (SELECT name FROM tenants WHERE id = ?1)",
        )?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    Ok(usize::from(weight.unwrap_or(1).max(1)))
}

/// Closes or opens the lanes of a tenant that has a cap, by what it has in flight. Whether one is open.
pub(super) fn settle(writer: &Writer, tenant: i64) -> Result<Option<bool>, Fault> {
    let Some(room) = room(writer, tenant)? else {
        return Ok(None);
    };
    reopen(writer, tenant, room > 0)?;
    let open = writer
        .connection
        .prepare_cached("SELECT 1 FROM lanes INDEXED BY lanes_open WHERE open AND tenant = ?1")?
        .exists([tenant])?;
    Ok(Some(open))
}

fn reopen(writer: &Writer, tenant: i64, room: bool) -> Result<(), Fault> {
    writer
        .connection
        .prepare_cached(
            "UPDATE lanes SET open = ?2
             WHERE tenant = ?1 AND open <> ?2
               AND (NOT ?2 OR ready > 0 AND in_flight < (SELECT max_per_endpoint FROM settings))",
        )?
        .execute(params![tenant, room])?;
    Ok(())
}

/// Settles all tenants that have a cap.
pub(super) fn settle_all(writer: &Writer) -> Result<(), Fault> {
    let mut statement = writer
        .connection
        .prepare_cached("SELECT t.id FROM quotas q JOIN tenants t ON t.name = q.tenant")?;
    let tenants = statement.query_map([], |row| row.get(0))?;
    for tenant in tenants.collect::<rusqlite::Result<Vec<i64>>>()? {
        settle(writer, tenant)?;
    }
    Ok(())
}

pub(super) fn set(writer: &Writer, quotas: &[(TenantId, Quota)]) -> Result<(), Fault> {
    let connection = &writer.connection;
    let before: Vec<(String, u8, Option<u32>)> = connection
        .prepare_cached("SELECT tenant, weight, max_in_flight FROM quotas ORDER BY tenant")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut wanted: Vec<(String, u8, Option<u32>)> = quotas
        .iter()
        .filter(|(_, quota)| !quota.is_default())
        .map(|(tenant, quota)| {
            let most = quota.max_in_flight.map(NonZeroU32::get);
            (tenant.as_str().to_owned(), quota.weight.get(), most)
        })
        .collect();
    wanted.sort();
    if before == wanted {
        return Ok(());
    }
    connection
        .prepare_cached("DELETE FROM quotas")?
        .execute([])?;
    let mut insert = connection.prepare_cached("INSERT INTO quotas VALUES (?1, ?2, ?3)")?;
    for (tenant, weight, most) in &wanted {
        insert.execute(params![tenant, weight, most])?;
    }
    for (tenant, ..) in before.iter().chain(&wanted) {
        let id: Option<i64> = connection
            .prepare_cached("SELECT id FROM tenants WHERE name = ?1")?
            .query_row([tenant], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            reopen(writer, id, room(writer, id)?.is_none_or(|room| room > 0))?;
        }
    }
    writer.announce(true);
    Ok(())
}
