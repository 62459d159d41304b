//! What ends a lease or reopens a delivery: record, release, replay.

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{DeliveryId, DeliveryState, ErrorClass, TenantId};

use super::clock::nanos;
use super::lanes::{Stage, Tally};
use super::lease::parse_token;
use super::rows::{self, state_number};
use super::sequences::advance;
use super::thread::Fault;
use super::writer::Writer;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{Leased, Outcome, Recorded};

/// Of very many attempts, so many of the first and of the latest are kept.
const FIRST_KEPT: u32 = 10;
const LATEST_KEPT: u32 = 90;

pub(super) fn record(writer: &Writer, outcomes: &[Outcome]) -> Result<Vec<Recorded>, Fault> {
    let now = writer.clock.now();
    let mut tally = Tally::default();
    let mut answers = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        answers.push(record_one(writer, outcome, now, &mut tally)?);
    }
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(answers)
}

fn record_one(
    writer: &Writer,
    outcome: &Outcome,
    now: i64,
    tally: &mut Tally,
) -> Result<Recorded, Fault> {
    let next = &outcome.delivery;
    if !DeliveryState::Leased.may_become(next.state) {
        return Err(Fault::Store(StoreError::Configuration(format!(
            "a leased delivery cannot become {}",
            next.state
        ))));
    }
    let Some((seq, lease)) = parse_token(&outcome.leased.token) else {
        return Ok(Recorded::LeaseLost);
    };
    let next_at = nanos(next.next_at);
    let stage = Stage::of(next.state, next_at, now);
    // A dead letter that blocks its sequence has a stage of its own.
    let ended: Option<(i64, bool, Option<String>)> = writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?3, back = NULL, attempt = ?5, next_at = ?6,
                 stage = CASE WHEN ?3 = 4 AND blocks THEN 5 ELSE ?4 END,
                 updated_at = ?7, replayed_at_attempt = ?8, lease = NULL, lease_until = NULL
             WHERE seq = ?1 AND stage = 2 AND lease = ?2
             RETURNING lane, blocks, sequence",
        )?
        .query_row(
            params![
                seq,
                lease,
                state_number(next.state),
                stage.number(),
                next.attempt,
                next_at,
                now,
                next.replayed_at_attempt
            ],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((lane, blocks, sequence)) = ended else {
        return Ok(Recorded::LeaseLost);
    };
    insert_attempt(writer, seq, &outcome.attempt)?;
    tally.leave(lane, Stage::InFlight);
    match sequence {
        Some(_) if blocks && stage == Stage::DeadLetter => tally.enter(lane, Stage::Blocking),
        Some(sequence) => {
            tally.enter(lane, stage);
            advance(writer, lane, &sequence, now, tally)?;
        }
        None => tally.enter(lane, stage),
    }
    Ok(Recorded::Written)
}

fn insert_attempt(writer: &Writer, seq: i64, attempt: &Attempt) -> Result<(), Fault> {
    let plugins = if attempt.plugins.is_empty() {
        None
    } else {
        let bytes = plugin_use::to_bytes(&attempt.plugins).map_err(|error| {
            StoreError::Configuration(format!("an attempt's plugins cannot be kept: {error}"))
        })?;
        Some(bytes)
    };
    writer
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO attempts (delivery, number, at, duration_ms, outcome,
                 status_code, retryable, error_class, error, plugins, response_excerpt, next_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            seq,
            attempt.number,
            attempt.at.to_string(),
            i64::try_from(attempt.duration_ms).unwrap_or(i64::MAX),
            attempt.outcome.as_str(),
            attempt.status_code,
            attempt.retryable,
            attempt.error_class.map(ErrorClass::as_str),
            attempt.error,
            plugins,
            attempt.response_excerpt,
            attempt.next_at.map(|at| at.to_string()),
        ])?;
    if attempt.number > FIRST_KEPT + LATEST_KEPT {
        writer
            .connection
            .prepare_cached(
                "DELETE FROM attempts WHERE delivery = ?1 AND number > ?2 AND number <= ?3",
            )?
            .execute(params![seq, FIRST_KEPT, attempt.number - LATEST_KEPT])?;
    }
    Ok(())
}

pub(super) fn release(writer: &Writer, leases: &[Leased]) -> Result<(), Fault> {
    let now = writer.clock.now();
    let mut tally = Tally::default();
    let mut update = writer.connection.prepare_cached(
        "UPDATE deliveries SET state = back, stage = 0, back = NULL, lease = NULL,
             lease_until = NULL, updated_at = ?3
         WHERE seq = ?1 AND stage = 2 AND lease = ?2
         RETURNING lane",
    )?;
    for leased in leases {
        let Some((seq, lease)) = parse_token(&leased.token) else {
            continue;
        };
        let lane = update
            .query_row(params![seq, lease, now], |row| row.get(0))
            .optional()?;
        if let Some(lane) = lane {
            tally.leave(lane, Stage::InFlight);
            tally.enter(lane, Stage::Ready);
        }
    }
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(())
}

/// A delivery that support asked for.
struct Found {
    seq: i64,
    lane: i64,
    state: DeliveryState,
    /// Whether its sequence waits for it, though it is a dead letter.
    blocking: bool,
    sequence: Option<String>,
}

fn find(writer: &Writer, tenant: &TenantId, id: &DeliveryId) -> Result<Found, Fault> {
    let mut statement = writer.connection.prepare_cached(
        "SELECT d.seq, d.lane, d.state, d.stage, d.sequence
         FROM deliveries d JOIN tenants t ON t.id = d.tenant
         WHERE t.name = ?1 AND d.id = ?2",
    )?;
    let mut rows = statement.query(params![tenant.as_str(), id.as_str()])?;
    let Some(row) = rows.next()? else {
        return Err(Fault::Store(StoreError::NotFound));
    };
    let seq = row.get(0)?;
    Ok(Found {
        seq,
        lane: row.get(1)?,
        state: rows::state(row.get(2)?).ok_or_else(|| rows::corrupt("delivery", seq))?,
        blocking: row.get::<_, i64>(3)? == Stage::Blocking.number(),
        sequence: row.get(4)?,
    })
}

pub(super) fn skip(writer: &Writer, tenant: &TenantId, id: &DeliveryId) -> Result<(), Fault> {
    let now = writer.clock.now();
    let found = find(writer, tenant, id)?;
    let (true, Some(sequence)) = (found.blocking, found.sequence) else {
        return Err(Fault::Store(StoreError::NotBlocking(found.state)));
    };
    writer
        .connection
        .prepare_cached("UPDATE deliveries SET stage = 3, updated_at = ?2 WHERE seq = ?1")?
        .execute(params![found.seq, now])?;
    let mut tally = Tally::default();
    tally.leave(found.lane, Stage::Blocking);
    tally.enter(found.lane, Stage::DeadLetter);
    advance(writer, found.lane, &sequence, now, &mut tally)?;
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(())
}

pub(super) fn replay(writer: &Writer, tenant: &TenantId, id: &DeliveryId) -> Result<(), Fault> {
    let now = writer.clock.now();
    let Found {
        seq,
        lane,
        state,
        blocking,
        sequence,
    } = find(writer, tenant, id)?;
    if !state.may_become(DeliveryState::Pending) || state == DeliveryState::Leased {
        return Err(Fault::Store(StoreError::NotFinished(state)));
    }
    // One that blocked its sequence has its turn still; others wait for theirs in their old place.
    let (from, to) = match &sequence {
        _ if blocking => (Stage::Blocking, Stage::Ready),
        Some(_) => (Stage::of(state, now, now), Stage::Behind),
        None => (Stage::of(state, now, now), Stage::Ready),
    };
    writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = 0, stage = ?3, replayed_at_attempt = attempt,
                 next_at = ?2, updated_at = ?2
             WHERE seq = ?1",
        )?
        .execute(params![seq, now, to.number()])?;
    let mut tally = Tally::default();
    tally.leave(lane, from);
    tally.enter(lane, to);
    if let Some(sequence) = sequence {
        advance(writer, lane, &sequence, now, &mut tally)?;
    }
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(())
}
