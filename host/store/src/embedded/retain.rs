//! Removing what was kept long enough.

use std::collections::VecDeque;

use rusqlite::params;
use wasmhook_core::DeliveryState;

use super::clock::span;
use super::lanes::{Stage, Tally, forget_tenant};
use super::read::Reader;
use super::rows::{self, corrupt, limit_number};
use super::thread::Fault;
use super::writer::Writer;
use crate::queue::Retention;

/// At most so many are removed per call, so that other writers do not wait for long: some two milliseconds.
const REMOVED: usize = 100;

/// Tenants that have something to remove, and are still to be served before all are looked for again.
pub(super) type Round = VecDeque<i64>;

/// A finished delivery to be removed.
struct Old {
    seq: i64,
    lane: i64,
    event: i64,
    state: i64,
}

/// The tenants of which something is past its retention. With many tenants this takes a while, so it is for a
/// connection that reads.
pub(super) fn look(reader: &Reader, retention: &Retention, now: i64) -> Result<Round, Fault> {
    let mut statement = reader.connection.prepare_cached(
        "SELECT tenant FROM (
             SELECT tenant, sum(succeeded + dead_letter) AS finished FROM lanes
             GROUP BY tenant HAVING finished > 0) AS kept
         WHERE finished > ?1 OR (
             SELECT min(updated_at) FROM deliveries INDEXED BY deliveries_finished
             WHERE stage = 3 AND deliveries.tenant = kept.tenant) <= ?2",
    )?;
    let cutoff = now.saturating_sub(span(retention.age));
    let rows = statement.query_map(params![limit_number(retention.count), cutoff], |row| {
        row.get(0)
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes some of what is past its retention. Returns how many deliveries and events that are, and the tenants that
/// are left of the round.
pub(super) fn retain(
    writer: &Writer,
    retention: &Retention,
    mut round: Round,
) -> Result<(usize, Round), Fault> {
    let cutoff = writer.clock.now().saturating_sub(span(retention.age));
    let mut old = Vec::new();
    while old.len() < REMOVED
        && let Some(tenant) = round.front().copied()
    {
        let excess = finished(writer, tenant)?.saturating_sub(limit_number(retention.count));
        collect(writer, tenant, excess, cutoff, &mut old)?;
        // A full call leaves the tenant to the next, for it may have more.
        if old.len() < REMOVED {
            round.pop_front();
        }
    }
    let mut tally = Tally::default();
    for one in &old {
        remove(writer, one, &mut tally)?;
    }
    tally.apply(writer)?;
    let mut removed = old.len();
    if removed < REMOVED {
        removed += remove_bare_events(writer, cutoff)?;
    }
    Ok((removed, round))
}

/// How many deliveries of a tenant are finished.
fn finished(writer: &Writer, tenant: i64) -> Result<i64, Fault> {
    let mut statement = writer.connection.prepare_cached(
        "SELECT coalesce(sum(succeeded + dead_letter), 0) FROM lanes WHERE tenant = ?1",
    )?;
    Ok(statement.query_row([tenant], |row| row.get(0))?)
}

/// Adds the tenant's oldest finished deliveries: the first `excess`, and all finished by `cutoff`.
fn collect(
    writer: &Writer,
    tenant: i64,
    excess: i64,
    cutoff: i64,
    old: &mut Vec<Old>,
) -> Result<(), Fault> {
    let room = REMOVED.saturating_sub(old.len());
    // Of a state that this version does not know nothing is thrown away.
    let mut statement = writer.connection.prepare_cached(
        "SELECT seq, lane, event, state, updated_at
         FROM deliveries INDEXED BY deliveries_finished
         WHERE stage = 3 AND tenant = ?1 AND state IN (3, 4) ORDER BY updated_at, seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![tenant, limit_number(room)])?;
    let mut nth = 0;
    while let Some(row) = rows.next()? {
        if nth >= excess && row.get::<_, i64>(4)? > cutoff {
            break;
        }
        nth += 1;
        old.push(Old {
            seq: row.get(0)?,
            lane: row.get(1)?,
            event: row.get(2)?,
            state: row.get(3)?,
        });
    }
    Ok(())
}

fn remove(writer: &Writer, old: &Old, tally: &mut Tally) -> Result<(), Fault> {
    let connection = &writer.connection;
    connection
        .prepare_cached("DELETE FROM deliveries WHERE seq = ?1")?
        .execute([old.seq])?;
    connection
        .prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?
        .execute([old.seq])?;
    connection
        .prepare_cached(
            "DELETE FROM events WHERE seq = ?1
                AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1)",
        )?
        .execute([old.event])?;
    match rows::state(old.state) {
        Some(DeliveryState::Succeeded) => tally.leave(old.lane, Stage::Succeeded),
        Some(DeliveryState::DeadLetter) => tally.leave(old.lane, Stage::DeadLetter),
        _ => return Err(corrupt("delivery", old.seq)),
    }
    Ok(())
}

/// Events without a delivery are only there to be known; age ends that too.
fn remove_bare_events(writer: &Writer, cutoff: i64) -> Result<usize, Fault> {
    let mut statement = writer.connection.prepare_cached(
        "DELETE FROM events WHERE seq IN (
             SELECT seq FROM events INDEXED BY events_bare
             WHERE bare AND created_at <= ?1 ORDER BY created_at LIMIT ?2)
         RETURNING tenant",
    )?;
    let mut tenants = statement
        .query_map(params![cutoff, limit_number(REMOVED)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    let removed = tenants.len();
    tenants.sort_unstable();
    tenants.dedup();
    for tenant in tenants {
        forget_tenant(writer, tenant)?;
    }
    Ok(removed)
}
