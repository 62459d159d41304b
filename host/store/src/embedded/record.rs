//! What ends a lease or reopens a delivery: record, release, replay.

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{DeliveryId, DeliveryState, ErrorClass, TenantId};

use super::clock::nanos;
use super::lanes::{Stage, Tally};
use super::lease::parse_token;
use super::rows::{self, state_number};
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
    let lane: Option<i64> = writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?3, stage = ?4, back = NULL, attempt = ?5, next_at = ?6,
                 updated_at = ?7, replayed_at_attempt = ?8, lease = NULL, lease_until = NULL
             WHERE seq = ?1 AND stage = 2 AND lease = ?2
             RETURNING lane",
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
            |row| row.get(0),
        )
        .optional()?;
    let Some(lane) = lane else {
        return Ok(Recorded::LeaseLost);
    };
    insert_attempt(writer, seq, &outcome.attempt)?;
    tally.leave(lane, Stage::InFlight);
    tally.enter(lane, stage);
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

pub(super) fn replay(writer: &Writer, tenant: &TenantId, id: &DeliveryId) -> Result<(), Fault> {
    let now = writer.clock.now();
    let found: Option<(i64, i64, i64)> = writer
        .connection
        .prepare_cached(
            "SELECT d.seq, d.lane, d.state FROM deliveries d JOIN tenants t ON t.id = d.tenant
             WHERE t.name = ?1 AND d.id = ?2",
        )?
        .query_row(params![tenant.as_str(), id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((seq, lane, number)) = found else {
        return Err(Fault::Store(StoreError::NotFound));
    };
    let state = rows::state(number).ok_or_else(|| rows::corrupt("delivery", seq))?;
    if !state.may_become(DeliveryState::Pending) || state == DeliveryState::Leased {
        return Err(Fault::Store(StoreError::NotFinished(state)));
    }
    writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = 0, stage = 0, replayed_at_attempt = attempt,
                 next_at = ?2, updated_at = ?2
             WHERE seq = ?1",
        )?
        .execute(params![seq, now])?;
    let mut tally = Tally::default();
    tally.leave(lane, Stage::of(state, now, now));
    tally.enter(lane, Stage::Ready);
    let news = tally.apply(writer)?;
    writer.announce(news);
    Ok(())
}
