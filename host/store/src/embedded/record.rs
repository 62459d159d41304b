//! What ends a lease or reopens a delivery: record, replay, skip.

use rusqlite::params;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{DeliveryId, DeliveryState, ErrorClass, Sequence, TenantId};

use super::clock::nanos;
use super::lanes::{Stage, Tally};
use super::leases::parse_token;
use super::names;
use super::rows::{self, state_number};
use super::sequences::advance;
use super::thread::Fault;
use super::writer::Writer;
use crate::error::StoreError;
use crate::plugin_use;
use crate::queue::{Outcome, Recorded};
use crate::stalling::Reaction;

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
    tally.apply(writer)?;
    // Places are free now, whatever becomes of the transaction.
    writer.wake_for_work();
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
    let number = parse_token(&outcome.leased.token);
    let Some((seq, lane)) =
        number.and_then(|(seq, lease)| Some((seq, writer.begin_end(seq, lease)?)))
    else {
        return Ok(Recorded::LeaseLost);
    };
    writer.note(lane, Reaction::of(&outcome.attempt));
    let next_at = nanos(next.next_at);
    let sequence = outcome.leased.delivery.sequence.as_ref();
    let stage = match Stage::of(next.state, next_at, now) {
        // A dead letter that blocks its sequence has a stage of its own.
        Stage::DeadLetter if sequence.is_some_and(Sequence::blocks) => Stage::Blocking,
        stage => stage,
    };
    let written = writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, stage = ?3, attempt = ?4, next_at = ?5,
                 updated_at = ?6, replayed_at_attempt = ?7
             WHERE seq = ?1 AND stage = 0",
        )?
        .execute(params![
            seq,
            state_number(next.state),
            stage.number(),
            next.attempt,
            next_at,
            now,
            next.replayed_at_attempt
        ])?;
    if written == 0 {
        // A repair by another process, which knows no leases, has moved it.
        return Ok(Recorded::LeaseLost);
    }
    insert_attempt(writer, seq, &outcome.attempt)?;
    tally.leave(lane, Stage::Ready);
    writer.place(tally, lane, stage, (next_at, seq));
    if let Some(sequence) = sequence
        && stage != Stage::Blocking
    {
        advance(writer, lane, sequence.name(), now, tally)?;
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
    let Some(seq) = names::find(&writer.connection, tenant, id)? else {
        return Err(Fault::Store(StoreError::NotFound));
    };
    let mut statement = writer
        .connection
        .prepare_cached("SELECT lane, state, stage, sequence FROM deliveries WHERE seq = ?1")?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else {
        return Err(Fault::Store(StoreError::NotFound));
    };
    let state = rows::state(row.get(1)?).ok_or_else(|| rows::corrupt("delivery", seq))?;
    let held = !state.is_finished() && writer.is_held(seq);
    Ok(Found {
        seq,
        lane: row.get(0)?,
        state: if held { DeliveryState::Leased } else { state },
        blocking: row.get::<_, i64>(2)? == Stage::Blocking.number(),
        sequence: row.get(3)?,
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
    tally.apply(writer)
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
    writer.place(&mut tally, lane, to, (now, seq));
    if let Some(sequence) = sequence {
        advance(writer, lane, &sequence, now, &mut tally)?;
    }
    tally.apply(writer)
}
