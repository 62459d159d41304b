//! Sequences: whose turn it is, and who is next.

use rusqlite::{Connection, OptionalExtension as _, params};
use wasmhook_core::DeliveryState;

use super::lanes::{Stage, Tally};
use super::rows;
use super::thread::Fault;
use super::writer::Writer;

/// Lets the next delivery of a sequence go, if it is nobody's turn.
pub(super) fn advance(
    writer: &Writer,
    lane: i64,
    sequence: &str,
    now: i64,
    tally: &mut Tally,
) -> Result<(), Fault> {
    if turn(&writer.connection, lane, sequence)?.is_some() {
        return Ok(());
    }
    let next: Option<(i64, i64, i64)> = writer
        .connection
        .prepare_cached(
            "SELECT seq, state, next_at FROM deliveries INDEXED BY deliveries_sequence
             WHERE sequence = ?2 AND lane = ?1 AND stage = 4 AND stage <> 3 ORDER BY seq LIMIT 1",
        )?
        .query_row(params![lane, sequence], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((seq, number, next_at)) = next else {
        return Ok(());
    };
    let state = rows::state(number).unwrap_or(DeliveryState::Pending);
    let to = Stage::of(state, next_at, now);
    writer
        .connection
        .prepare_cached("UPDATE deliveries SET stage = ?2 WHERE seq = ?1")?
        .execute(params![seq, to.number()])?;
    tally.leave(lane, Stage::Behind);
    writer.place(tally, lane, to, (next_at, seq));
    Ok(())
}

/// The id of the delivery whose turn it is, or that blocks.
pub(super) fn turn(
    connection: &Connection,
    lane: i64,
    sequence: &str,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT coalesce(name, id) FROM deliveries INDEXED BY deliveries_sequence
             WHERE sequence = ?2 AND lane = ?1 AND stage IN (0, 1, 5) AND stage <> 3 LIMIT 1",
        )?
        .query_row(params![lane, sequence], |row| row.get(0))
        .optional()
}
