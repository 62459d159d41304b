//! Tenants and lanes: who there is, and how many deliveries of each lane are at which stage.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::DeliveryState;

use super::quotas;
use super::thread::Fault;
use super::writer::Writer;

/// Where a delivery is counted in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Due.
    Ready,
    /// Due later.
    Delayed,
    /// Leased.
    InFlight,
    /// Finished well.
    Succeeded,
    /// Given up.
    DeadLetter,
    /// Waiting for its turn in a sequence.
    Behind,
    /// Given up, and its sequence waits for it.
    Blocking,
}

/// How many stages there are.
pub(super) const STAGES: usize = 7;

impl Stage {
    /// The number in the table, which does not tell the two ends apart.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Ready => 0,
            Self::Delayed => 1,
            Self::InFlight => 2,
            Self::Succeeded | Self::DeadLetter => 3,
            Self::Behind => 4,
            Self::Blocking => 5,
        }
    }

    /// Where a delivery of this state is counted whose next attempt is due at `next_at`.
    pub(super) fn of(state: DeliveryState, next_at: i64, now: i64) -> Self {
        match state {
            DeliveryState::Pending | DeliveryState::Failed if next_at > now => Self::Delayed,
            DeliveryState::Pending | DeliveryState::Failed => Self::Ready,
            DeliveryState::Leased => Self::InFlight,
            DeliveryState::Succeeded => Self::Succeeded,
            DeliveryState::DeadLetter => Self::DeadLetter,
        }
    }
}

/// Changes to lanes, summed up so that each lane is written once per task.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lanes: BTreeMap<i64, Change>,
}

#[derive(Debug, Default)]
struct Change {
    counts: [i64; STAGES],
    served: Option<i64>,
}

impl Tally {
    /// One delivery of the lane came to this stage.
    pub(super) fn enter(&mut self, lane: i64, stage: Stage) {
        self.change(lane).counts[stage as usize] += 1;
    }

    /// One delivery of the lane left this stage.
    pub(super) fn leave(&mut self, lane: i64, stage: Stage) {
        self.change(lane).counts[stage as usize] -= 1;
    }

    /// The lane's counts differ from its deliveries by so much.
    pub(super) fn correct(&mut self, lane: i64, difference: [i64; STAGES]) {
        for (count, more) in self.change(lane).counts.iter_mut().zip(difference) {
            *count += more;
        }
    }

    /// The lane had its turn.
    pub(super) fn served(&mut self, lane: i64, turn: i64) {
        self.change(lane).served = Some(turn);
    }

    fn change(&mut self, lane: i64) -> &mut Change {
        self.lanes.entry(lane).or_default()
    }

    /// Writes the changes; removes lanes that have nothing left, and tenants that have no lane
    /// left. Whether something may be leased now that could not be before.
    pub(super) fn apply(self, writer: &Writer) -> Result<bool, Fault> {
        let mut news = false;
        let mut tenants: Vec<(i64, bool)> = Vec::new();
        for (lane, change) in self.lanes {
            let [
                ready,
                delayed,
                in_flight,
                succeeded,
                dead_letter,
                behind,
                blocking,
            ] = change.counts;
            let (tenant, open, left): (i64, bool, i64) = writer
                .connection
                .prepare_cached(
                    "UPDATE lanes SET
                         ready = ready + ?2,
                         delayed = delayed + ?3,
                         in_flight = in_flight + ?4,
                         succeeded = succeeded + ?5,
                         dead_letter = dead_letter + ?6,
                         behind = behind + ?8,
                         blocking = blocking + ?9,
                         served = coalesce(?7, served),
                         open = ready + ?2 > 0
                            AND in_flight + ?4 < (SELECT max_per_endpoint FROM settings)
                     WHERE id = ?1
                     RETURNING tenant, open,
                               ready + delayed + in_flight + succeeded + dead_letter + behind
                                   + blocking",
                )?
                .query_row(
                    params![
                        lane,
                        ready,
                        delayed,
                        in_flight,
                        succeeded,
                        dead_letter,
                        change.served,
                        behind,
                        blocking
                    ],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )?;
            news |= delayed > 0;
            match tenants.iter_mut().find(|(known, _)| *known == tenant) {
                Some((_, any)) => *any |= open,
                None => tenants.push((tenant, open)),
            }
            if left == 0 {
                writer
                    .connection
                    .prepare_cached("DELETE FROM lanes WHERE id = ?1")?
                    .execute([lane])?;
                forget_tenant(writer, tenant)?;
            }
        }
        for (tenant, open) in tenants {
            news |= quotas::settle(writer, tenant)?.unwrap_or(open);
        }
        Ok(news)
    }
}

/// Removes a tenant that has neither lanes nor events.
pub(super) fn forget_tenant(writer: &Writer, tenant: i64) -> Result<(), Fault> {
    writer
        .connection
        .prepare_cached(
            "DELETE FROM tenants WHERE id = ?1
                AND NOT EXISTS (SELECT 1 FROM lanes WHERE tenant = ?1)
                AND NOT EXISTS (SELECT 1 FROM events WHERE tenant = ?1)",
        )?
        .execute([tenant])?;
    Ok(())
}

/// The tenant's number; it gets one if it has none.
pub(super) fn tenant_number(writer: &Writer, name: &str) -> Result<i64, Fault> {
    let known = writer
        .connection
        .prepare_cached("SELECT id FROM tenants WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    writer
        .connection
        .prepare_cached("INSERT INTO tenants (name) VALUES (?1)")?
        .execute([name])?;
    Ok(writer.connection.last_insert_rowid())
}

/// The lane's number; it gets one if it has none.
pub(super) fn lane_number(writer: &Writer, tenant: i64, endpoint: &str) -> Result<i64, Fault> {
    let known = writer
        .connection
        .prepare_cached("SELECT id FROM lanes WHERE tenant = ?1 AND endpoint = ?2")?
        .query_row(params![tenant, endpoint], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    writer
        .connection
        .prepare_cached("INSERT INTO lanes (tenant, endpoint) VALUES (?1, ?2)")?
        .execute(params![tenant, endpoint])?;
    Ok(writer.connection.last_insert_rowid())
}
