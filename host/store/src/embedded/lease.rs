//! Leasing, on a thread and a connection of its own that only reads: it waits for no commit.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::clock::{StoreClock, span, until};
use super::lanes::{Stage, Tally};
use super::leases::{parse_token, token};
use super::rows::{self, delivery_columns, delivery_joins, event_columns, limit_number};
use super::schedule::{Call, Picked, Place};
use super::thread::{Fault, Session};
use super::writer::{Shared, Writer};
use crate::queue::{Batch, LeaseRequest, Leased};

/// At most so many waiting deliveries are made ready per call; the rest follow with the next calls, for
/// `next_due` is zero then.
const MOVED: usize = 1000;

/// The connection that leases read by, and what there is to lease.
pub(super) struct Leaser {
    pub(super) connection: Connection,
    pub(super) clock: Arc<StoreClock>,
    pub(super) schedule: Arc<Shared>,
}

impl Session for Leaser {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Leases what is due; with `new_up_to` what is new, and for no endpoint more than come to this many in flight.
pub(super) fn lease(
    leaser: &Leaser,
    request: &LeaseRequest,
    new_up_to: Option<usize>,
) -> Result<Batch, Fault> {
    let now = leaser.clock.now();
    let call = Call {
        max: request.max,
        max_per_endpoint: request.max_per_endpoint,
        new_up_to,
        until: now.saturating_add(span(request.duration)),
    };
    let mut source =
        |lane, after, limit| due_places(&leaser.connection, lane, after, limit).map_err(Fault::Sql);
    let picked = leaser.schedule.lock().lease(call, now, &mut source)?;
    let numbers: Vec<(i64, i64)> = picked.iter().map(|one| (one.seq, one.lease)).collect();
    let got = picked
        .into_iter()
        .filter_map(|one| {
            let seq = one.seq;
            match whole(leaser, one) {
                // It stays leased and comes again; nothing is thrown away that a newer version or a repair could read.
                Err(fault) if fault.is_of_row() => {
                    cannot_read(&leaser.connection, seq);
                    None
                }
                whole => whole.transpose(),
            }
        })
        .collect::<Result<Vec<_>, Fault>>();
    let mut schedule = leaser.schedule.lock();
    if got.is_err() {
        for (seq, lease) in numbers.iter().copied() {
            schedule.release(seq, lease);
        }
    }
    let got = got?;
    // Less than asked for is no sign that nothing else is due.
    let next_due = if got.len() < numbers.len() {
        Some(Duration::ZERO)
    } else {
        schedule.next_change().map(|then| until(then, now))
    };
    Ok(Batch {
        leased: got,
        next_due,
    })
}

/// Says which delivery it is, as far as that can be read.
fn cannot_read(connection: &Connection, seq: i64) {
    let select = "SELECT seq, coalesce(name, id) FROM deliveries WHERE seq = ?1";
    let delivery = connection.query_row(select, [seq], rows::id_or_number);
    tracing::error!(
        delivery = delivery.unwrap_or_else(|_| seq.to_string()),
        "a leased record or its event cannot be read; it is damaged, or of a newer version"
    );
}

/// Gives leases up; whether one of them was in force.
pub(super) fn release(schedule: &Shared, leases: &[Leased]) -> bool {
    let mut schedule = schedule.lock();
    let mut any = false;
    for leased in leases {
        if let Some((seq, lease)) = parse_token(&leased.token) {
            any |= schedule.release(seq, lease);
        }
    }
    any
}

/// Places of a lane behind one, in order.
fn due_places(
    connection: &Connection,
    lane: i64,
    (at, seq): Place,
    limit: usize,
) -> rusqlite::Result<Vec<Place>> {
    let mut statement = connection.prepare_cached(
        "SELECT next_at, seq FROM deliveries INDEXED BY deliveries_ready
         WHERE stage = 0 AND lane = ?1 AND next_at >= ?2 AND (next_at > ?2 OR seq > ?3)
         ORDER BY next_at, seq LIMIT ?4",
    )?;
    let rows = statement.query_map(params![lane, at, seq, limit_number(limit)], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

/// A leased delivery with all that belongs to it; `None` when it is not due any more, for another process
/// changed it.
fn whole(leaser: &Leaser, picked: Picked) -> Result<Option<Leased>, Fault> {
    let Picked {
        seq, lease, fresh, ..
    } = picked;
    let token = token(seq, lease);
    if let Some(fresh) = fresh {
        return Ok(Some(Leased {
            delivery: fresh.delivery,
            event: fresh.event,
            attempts: Vec::new(),
            token,
        }));
    }
    let mut select = leaser.connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        ", ",
        event_columns!(),
        " FROM deliveries d",
        delivery_joins!(),
        "WHERE d.seq = ?1 AND d.stage = 0",
    ))?;
    let mut found = select.query([seq])?;
    let Some(row) = found.next()? else {
        leaser.schedule.lock().drop_lease(seq, lease);
        return Ok(None);
    };
    let delivery = rows::delivery(row)?;
    Ok(Some(Leased {
        event: rows::event(row, rows::DELIVERY_COLUMNS)?,
        attempts: rows::attempts(&leaser.connection, seq, &delivery)?,
        delivery,
        token,
    }))
}

/// Has the writer put what has become due where it can be leased.
pub(super) fn make_ready(writer: &Writer) -> Result<(), Fault> {
    let connection = &writer.connection;
    let mut tally = Tally::default();
    let mut update = connection.prepare_cached("UPDATE deliveries SET stage = 0 WHERE seq = ?1")?;
    for (seq, lane, next_at) in overdue(connection, writer.clock.now())? {
        update.execute([seq])?;
        tally.leave(lane, Stage::Delayed);
        writer.place(&mut tally, lane, Stage::Ready, (next_at, seq));
    }
    tally.apply(writer)?;
    let mut changes = writer.changes.borrow_mut();
    changes.delayed = next_delayed(connection)?;
    changes.next_delayed = true;
    Ok(())
}

/// Number, lane and time of what waits no longer.
fn overdue(connection: &Connection, now: i64) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, lane, next_at FROM deliveries INDEXED BY deliveries_delayed
         WHERE stage = 1 AND next_at <= ?1 ORDER BY next_at LIMIT ?2",
    )?;
    let rows = statement.query_map(params![now, limit_number(MOVED)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    rows.collect()
}

/// When the next delivery becomes due that waits for its time.
pub(super) fn next_delayed(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT next_at FROM deliveries INDEXED BY deliveries_delayed
             WHERE stage = 1 ORDER BY next_at LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()
}
