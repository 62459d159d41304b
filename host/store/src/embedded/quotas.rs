//! What tenants may take of what is in flight.
//!
//! It is kept by name, for a tenant without deliveries has no number; the host's schedule knows it by
//! number.

use std::collections::HashMap;
use std::num::NonZeroU32;

use rusqlite::Connection;
use rusqlite::params;
use wasmhook_core::{Quota, TenantId};

use super::schedule::Allowance;
use super::thread::Fault;
use super::writer::Writer;

fn allowance(weight: u8, most: Option<u32>) -> Allowance {
    Allowance {
        weight: usize::from(weight.max(1)),
        most: most.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
    }
}

/// What tenants may take that have a quota, by name.
pub(super) fn named(connection: &Connection) -> rusqlite::Result<HashMap<String, Allowance>> {
    let mut statement =
        connection.prepare_cached("SELECT tenant, weight, max_in_flight FROM quotas")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, allowance(row.get(1)?, row.get(2)?)))
    })?;
    rows.collect()
}

/// What tenants may take that have a quota and a number, by number.
pub(super) fn numbered(connection: &Connection) -> rusqlite::Result<HashMap<i64, Allowance>> {
    let mut statement = connection.prepare_cached(
        "SELECT t.id, q.weight, q.max_in_flight FROM quotas q JOIN tenants t ON t.name = q.tenant",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, allowance(row.get(1)?, row.get(2)?)))
    })?;
    rows.collect()
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
    writer.changes.borrow_mut().all = true;
    Ok(())
}
