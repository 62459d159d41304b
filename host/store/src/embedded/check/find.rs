//! What is wrong in the tables at one moment.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, Row};
use wasmhook_core::DeliveryState;

use super::standing::Standing;
use super::{Cure, Suspect};
use crate::check::{CheckReport, Finding};
use crate::embedded::lanes::{STAGES, Stage};
use crate::embedded::rows::{self, delivery_columns, event_head_columns};
use crate::embedded::{schema, thread};
use crate::error::StoreError;

/// Lines asked of the database's own check.
const LINES: i64 = 20;

/// Looks at everything as it is at one moment.
pub(super) fn picture(database: &Path) -> Result<(CheckReport, Vec<Suspect>), StoreError> {
    let connection = schema::open_reader(database)?;
    let read = || {
        let transaction = connection.unchecked_transaction()?;
        let mut report = CheckReport::default();
        let mut suspects = Vec::new();
        damage(&transaction, &mut suspects)?;
        let counts = deliveries(&transaction, &mut report, &mut suspects)?;
        lanes(&transaction, counts, &mut report, &mut suspects)?;
        sequences(&transaction, &mut suspects)?;
        events(&transaction, &mut suspects)?;
        Ok((report, suspects))
    };
    read().map_err(|error| thread::described("check", &error))
}

/// What the database itself finds wrong with the file.
fn damage(connection: &Connection, suspects: &mut Vec<Suspect>) -> rusqlite::Result<()> {
    connection.pragma(None, "quick_check", LINES, |row| {
        let line: String = row.get(0)?;
        if line != "ok" {
            suspects.push(Suspect {
                finding: Finding::Damaged,
                tenant: String::new(),
                subject: line,
                cure: Cure::None,
            });
        }
        Ok(())
    })
}

/// Checks each delivery; returns how many of each lane are counted where.
fn deliveries(
    connection: &Connection,
    report: &mut CheckReport,
    suspects: &mut Vec<Suspect>,
) -> rusqlite::Result<HashMap<i64, [i64; STAGES]>> {
    let mut counts: HashMap<i64, [i64; STAGES]> = HashMap::new();
    let mut statement = connection.prepare(concat!(
        "SELECT ",
        delivery_columns!(),
        ", ",
        event_head_columns!(),
        ", t.name AS tenant, d.back, l.id IS NULL AS astray, e.seq IS NULL AS eventless
             FROM deliveries d
             LEFT JOIN tenants t ON t.id = d.tenant
             LEFT JOIN lanes l ON l.id = d.lane
             LEFT JOIN events e ON e.seq = d.event
             ORDER BY d.seq",
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let seq = rows::seq(row)?;
        let tenant: Option<String> = row.get("tenant")?;
        let (astray, eventless): (bool, bool) = (row.get("astray")?, row.get("eventless")?);
        let standing = match Standing::of(row) {
            Ok(standing) => standing,
            Err(error) if thread::is_of_row(&error) => {
                report.looked.deliveries += 1;
                suspects.push(Suspect {
                    finding: Finding::Unreadable,
                    tenant: tenant.unwrap_or_default(),
                    subject: rows::id_or_number(row)?,
                    cure: Cure::None,
                });
                continue;
            }
            Err(error) => return Err(error),
        };
        let finished = matches!(
            standing.state,
            Some(DeliveryState::Succeeded | DeliveryState::DeadLetter)
        );
        report.looked.deliveries += 1;
        report.looked.open += u64::from(!finished);
        match standing.stage {
            Some(Stage::Ready) => report.looked.due += 1,
            Some(Stage::Delayed) => report.looked.waiting += 1,
            Some(Stage::Behind) => report.looked.behind += 1,
            _ => {}
        }
        if let Some(stage) = standing.stage {
            counts.entry(standing.lane).or_default()[stage as usize] += 1;
        }
        let (finding, cure) = if tenant.is_none() || standing.state.is_none() {
            (Finding::Unreadable, Cure::None)
        } else if astray && !finished {
            // Its endpoint was kept there alone.
            (Finding::Lost, Cure::None)
        } else if let Some(finding) = standing.wrong() {
            (finding, Cure::Stage(seq))
        } else if eventless && !finished {
            (Finding::EventMissing, Cure::Bury(seq))
        } else if !astray && !eventless && !is_readable(connection, row, seq, finished) {
            (Finding::Unreadable, Cure::None)
        } else {
            continue;
        };
        suspects.push(Suspect {
            finding,
            tenant: tenant.unwrap_or_default(),
            subject: rows::id_or_number(row)?,
            cure,
        });
    }
    Ok(counts)
}

/// Whether a row can be read with all that its delivery needs to be sent, if that is still to come.
fn is_readable(connection: &Connection, row: &Row<'_>, seq: i64, finished: bool) -> bool {
    let Ok(delivery) = rows::delivery(row) else {
        return false;
    };
    finished
        || (rows::event(row, rows::DELIVERY_COLUMNS).is_ok()
            && rows::attempts(connection, seq, &delivery).is_ok())
}

/// Checks the counts of each lane.
fn lanes(
    connection: &Connection,
    mut counts: HashMap<i64, [i64; STAGES]>,
    report: &mut CheckReport,
    suspects: &mut Vec<Suspect>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT l.id, coalesce(t.name, ''), l.endpoint,
                l.ready, l.delayed, l.succeeded, l.dead_letter, l.behind, l.blocking
         FROM lanes l LEFT JOIN tenants t ON t.id = l.tenant",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let lane: i64 = row.get(0)?;
        report.looked.lanes += 1;
        let mut change = counts.remove(&lane).unwrap_or_default();
        for (place, count) in change.iter_mut().enumerate() {
            *count -= row.get::<_, i64>(3 + place)?;
        }
        if change == [0; STAGES] {
            continue;
        }
        suspects.push(Suspect {
            finding: Finding::Counter,
            tenant: row.get(1)?,
            subject: row.get(2)?,
            cure: Cure::Count(lane, change),
        });
    }
    Ok(())
}

/// Finds sequences in which it is nobody's turn although some wait, or that of several.
fn sequences(connection: &Connection, suspects: &mut Vec<Suspect>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT d.lane, d.sequence, coalesce(t.name, ''), coalesce(l.endpoint, '')
         FROM deliveries d INDEXED BY deliveries_sequence
         LEFT JOIN lanes l ON l.id = d.lane LEFT JOIN tenants t ON t.id = l.tenant
         WHERE d.sequence IS NOT NULL AND d.stage <> 3
         GROUP BY d.lane, d.sequence HAVING sum(d.stage <> 4) <> 1",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        suspects.push(Suspect {
            finding: Finding::Sequence,
            tenant: row.get(2)?,
            subject: row.get(3)?,
            cure: Cure::Turn(row.get(0)?, row.get(1)?),
        });
    }
    Ok(())
}

/// Finds events that retention would remove although they have deliveries.
fn events(connection: &Connection, suspects: &mut Vec<Suspect>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT e.seq, coalesce(t.name, ''), e.id
         FROM events e INDEXED BY events_bare LEFT JOIN tenants t ON t.id = e.tenant
         WHERE e.bare AND EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.seq)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        suspects.push(Suspect {
            finding: Finding::Index,
            tenant: row.get(1)?,
            subject: row.get(2)?,
            cure: Cure::Keep(row.get(0)?),
        });
    }
    Ok(())
}
