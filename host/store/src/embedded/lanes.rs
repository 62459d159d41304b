//! Tenants and lanes: who there is, and how many deliveries of each lane are at which stage.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use wasmhook_core::DeliveryState;

use super::thread::Fault;
use super::writer::Writer;

/// Where a delivery is counted in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Due.
    Ready,
    /// Due later.
    Delayed,
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
pub(super) const STAGES: usize = 6;

impl Stage {
    /// The number in the table, which does not tell the two ends apart. Up to version 3 of the tables 2
    /// was what is leased.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Ready => 0,
            Self::Delayed => 1,
            Self::Succeeded | Self::DeadLetter => 3,
            Self::Behind => 4,
            Self::Blocking => 5,
        }
    }

    /// The stage with this number, of a delivery of this state.
    pub(super) fn read(number: i64, state: Option<DeliveryState>) -> Option<Self> {
        match (number, state) {
            (0, _) => Some(Self::Ready),
            (1, _) => Some(Self::Delayed),
            (3, Some(DeliveryState::Succeeded)) => Some(Self::Succeeded),
            (3, Some(DeliveryState::DeadLetter)) => Some(Self::DeadLetter),
            (4, _) => Some(Self::Behind),
            (5, _) => Some(Self::Blocking),
            _ => None,
        }
    }

    /// Where a delivery of this state is counted whose next attempt is due at `next_at`.
    pub(super) fn of(state: DeliveryState, next_at: i64, now: i64) -> Self {
        match state {
            DeliveryState::Pending | DeliveryState::Failed if next_at > now => Self::Delayed,
            // The file does not know who holds what.
            DeliveryState::Pending | DeliveryState::Failed | DeliveryState::Leased => Self::Ready,
            DeliveryState::Succeeded => Self::Succeeded,
            DeliveryState::DeadLetter => Self::DeadLetter,
        }
    }
}

/// Changes to lanes, summed up so that each lane is written once per task.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lanes: BTreeMap<i64, [i64; STAGES]>,
}

impl Tally {
    /// One delivery of the lane came to this stage.
    pub(super) fn enter(&mut self, lane: i64, stage: Stage) {
        self.change(lane)[stage as usize] += 1;
    }

    /// One delivery of the lane left this stage.
    pub(super) fn leave(&mut self, lane: i64, stage: Stage) {
        self.change(lane)[stage as usize] -= 1;
    }

    /// The lane's counts differ from its deliveries by so much.
    pub(super) fn correct(&mut self, lane: i64, difference: [i64; STAGES]) {
        for (count, more) in self.change(lane).iter_mut().zip(difference) {
            *count += more;
        }
    }

    /// The lane is looked at, and removed if it has no deliveries.
    pub(super) fn touch(&mut self, lane: i64) {
        self.change(lane);
    }

    fn change(&mut self, lane: i64) -> &mut [i64; STAGES] {
        self.lanes.entry(lane).or_default()
    }

    /// Writes the changes; removes lanes that have nothing left, and tenants that have no lane
    /// left.
    pub(super) fn apply(self, writer: &Writer) -> Result<(), Fault> {
        for (lane, [ready, delayed, succeeded, dead_letter, behind, blocking]) in self.lanes {
            let (tenant, due, left): (i64, i64, i64) = writer
                .connection
                .prepare_cached(
                    "UPDATE lanes SET
                         ready = ready + ?2,
                         delayed = delayed + ?3,
                         succeeded = succeeded + ?4,
                         dead_letter = dead_letter + ?5,
                         behind = behind + ?6,
                         blocking = blocking + ?7
                     WHERE id = ?1
                     RETURNING tenant, ready,
                               ready + delayed + succeeded + dead_letter + behind + blocking",
                )?
                .query_row(
                    params![
                        lane,
                        ready,
                        delayed,
                        succeeded,
                        dead_letter,
                        behind,
                        blocking
                    ],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )?;
            let due = usize::try_from(due).unwrap_or(0);
            writer.changes.borrow_mut().lanes.push((lane, tenant, due));
            if left == 0 {
                writer
                    .connection
                    .prepare_cached("DELETE FROM lanes WHERE id = ?1")?
                    .execute([lane])?;
                forget_tenant(writer, tenant)?;
            }
        }
        Ok(())
    }
}

/// Lanes that have due deliveries, with their tenants, and how many.
pub(super) fn due(connection: &Connection) -> rusqlite::Result<Vec<(i64, i64, usize)>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, tenant, ready FROM lanes INDEXED BY lanes_due WHERE ready > 0",
    )?;
    let rows = statement.query_map([], |row| {
        let due: i64 = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, usize::try_from(due).unwrap_or(0)))
    })?;
    rows.collect()
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
    let id = writer.connection.last_insert_rowid();
    // Also of a tenant without a quota: the number may have been another's that is gone.
    let allowance = writer.quotas.borrow().get(name).copied();
    let mut changes = writer.changes.borrow_mut();
    changes.allowances.push((id, allowance.unwrap_or_default()));
    Ok(id)
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
