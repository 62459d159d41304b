//! Checking the tables' invariants and mending them, while hosts work.
//!
//! A connection of its own reads everything in one transaction: a picture of one moment, that holds up
//! nobody. What is wrong in it is mended by the thread that writes, a bounded number at a time, after
//! another look. Counts are mended by the difference that the picture shows: all changes to them are
//! differences too, so what happened since stays counted. For the same reason one repair runs at a time.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use wasmhook_core::DeliveryState;

use super::EmbeddedStore;
use super::lanes::{STAGES, Stage, Tally};
use super::rows;
use super::schema;
use super::sequences::advance;
use super::thread::{self, Fault};
use super::writer::Writer;
use crate::check::{CheckReport, CheckRequest, Finding};
use crate::error::StoreError;

/// Beside the database; whoever repairs holds a lock on it.
const LOCK: &str = "wasmhook.repair";
/// Rows mended in one task of the writer.
const MENDED: usize = 100;
/// Lines asked of the database's own check.
const LINES: i64 = 20;

/// Something that the writer may be able to mend.
struct Suspect {
    finding: Finding,
    tenant: String,
    subject: String,
    cure: Cure,
}

enum Cure {
    None,
    /// The stage of a delivery that does not follow from its state.
    Stage(i64),
    /// An open delivery without an event.
    Bury(i64),
    /// An event that has deliveries and is marked as having none.
    Keep(i64),
    /// What to add to the counts of a lane.
    Count(i64, [i64; STAGES]),
    /// A sequence of a lane in which it is nobody's turn, or that of several.
    Turn(i64, String),
}

/// How a delivery stands in its row.
struct Standing {
    lane: i64,
    state: Option<DeliveryState>,
    stage: i64,
    back: Option<i64>,
    next_at: i64,
    sequence: Option<String>,
    blocks: bool,
}

impl Standing {
    /// Reads it from the columns `lane, state, stage, back, next_at, sequence, blocks`.
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            lane: row.get("lane")?,
            state: rows::state(row.get("state")?),
            stage: row.get("stage")?,
            back: row.get("back")?,
            next_at: row.get("next_at")?,
            sequence: row.get("sequence")?,
            blocks: row.get("blocks")?,
        })
    }

    /// Where its lane counts it.
    fn counted(&self) -> Option<Stage> {
        match (self.stage, self.state) {
            (0, _) => Some(Stage::Ready),
            (1, _) => Some(Stage::Delayed),
            (3, Some(DeliveryState::Succeeded)) => Some(Stage::Succeeded),
            (3, Some(DeliveryState::DeadLetter)) => Some(Stage::DeadLetter),
            (4, _) => Some(Stage::Behind),
            (5, _) => Some(Stage::Blocking),
            _ => None,
        }
    }

    /// What is wrong with it.
    fn wrong(&self) -> Option<Finding> {
        match (self.state?, self.stage) {
            (DeliveryState::Pending | DeliveryState::Failed, 0 | 1)
            | (DeliveryState::Succeeded | DeliveryState::DeadLetter, 3) => None,
            (DeliveryState::Pending | DeliveryState::Failed, 4) if self.sequence.is_some() => None,
            (DeliveryState::DeadLetter, 5) if self.sequence.is_some() && self.blocks => None,
            (DeliveryState::Succeeded | DeliveryState::DeadLetter, _) => Some(Finding::Stray),
            _ => Some(Finding::Lost),
        }
    }

    /// The state and the stage that it should have. The file holds no leases.
    fn right(&self, now: i64) -> Option<(DeliveryState, Stage)> {
        let state = match self.state? {
            DeliveryState::Leased if self.back == Some(2) => DeliveryState::Failed,
            DeliveryState::Leased => DeliveryState::Pending,
            state => state,
        };
        let place = match (Stage::of(state, self.next_at, now), &self.sequence) {
            // It is its turn if it is nobody else's, and it is the first.
            (Stage::Ready | Stage::Delayed, Some(_)) => Stage::Behind,
            (place, _) => place,
        };
        Some((state, place))
    }
}

impl EmbeddedStore {
    pub(super) async fn check_all(&self, request: CheckRequest) -> Result<CheckReport, StoreError> {
        let held = if request.repair {
            Some(hold(&self.folder.database)?)
        } else {
            None
        };
        let database = self.folder.database.clone();
        let reading = tokio::task::spawn_blocking(move || picture(&database));
        let (mut report, suspects) = reading.await.map_err(|_| thread::stopped())??;
        let mut suspects = suspects.into_iter().peekable();
        while suspects.peek().is_some() {
            let some: Vec<Suspect> = suspects.by_ref().take(MENDED).collect();
            let (some, mended) = if request.repair {
                let work = move |writer: &Writer| {
                    let mended = mend(writer, &some)?;
                    Ok((some, mended))
                };
                self.writer.call("check", work).await?
            } else {
                let none = vec![false; some.len()];
                (some, none)
            };
            for (suspect, mended) in some.iter().zip(mended) {
                report.found(suspect.finding, &suspect.tenant, &suspect.subject, mended);
            }
        }
        if request.repair {
            // What the host knows of the file is put right with it.
            let anew = |writer: &Writer| {
                writer.changes.borrow_mut().all = true;
                Ok(())
            };
            self.writer.call("check", anew).await?;
        }
        drop(held);
        // The file does not tell what is leased of what is due.
        let leased = u64::try_from(self.holdings().count()).unwrap_or(0);
        report.looked.leased = leased.min(report.looked.due);
        report.looked.due -= report.looked.leased;
        Ok(report)
    }
}

/// The lock of who repairs.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started may have the file open too. And
        // if this fails, the end of the process does it.
        let _ = self.0.unlock();
    }
}

/// Takes the lock of who repairs.
fn hold(database: &Path) -> Result<Held, StoreError> {
    let path = database.with_file_name(LOCK);
    let cannot = |reason: String| StoreError::Path {
        path: path.display().to_string(),
        reason,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| cannot(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Held(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(thread::unavailable(
            "another repair is under way; try again when it has ended".to_owned(),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(cannot(error.to_string())),
    }
}

type Picture = (CheckReport, Vec<Suspect>);

/// Looks at everything as it is at one moment.
fn picture(database: &Path) -> Result<Picture, StoreError> {
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
    let mut statement = connection.prepare(
        "SELECT d.seq, coalesce(d.name, d.id) AS id, t.name AS tenant, d.lane, d.state, d.stage, d.back, d.next_at, d.sequence, d.blocks, l.id IS NULL AS astray, e.seq IS NULL AS eventless
         FROM deliveries d
         LEFT JOIN tenants t ON t.id = d.tenant
         LEFT JOIN lanes l ON l.id = d.lane
         LEFT JOIN events e ON e.seq = d.event
         ORDER BY d.seq",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get("seq")?;
        let tenant: Option<String> = row.get("tenant")?;
        let standing = Standing::of(row)?;
        let finished = matches!(
            standing.state,
            Some(DeliveryState::Succeeded | DeliveryState::DeadLetter)
        );
        report.looked.deliveries += 1;
        report.looked.open += u64::from(!finished);
        match standing.counted() {
            Some(Stage::Ready) => report.looked.due += 1,
            Some(Stage::Delayed) => report.looked.waiting += 1,
            Some(Stage::Behind) => report.looked.behind += 1,
            _ => {}
        }
        if let Some(stage) = standing.counted() {
            counts.entry(standing.lane).or_default()[stage as usize] += 1;
        }
        let (finding, cure) = if tenant.is_none() || standing.state.is_none() {
            (Finding::Unreadable, Cure::None)
        } else if row.get("astray")? && !finished {
            // Its endpoint was kept there alone.
            (Finding::Lost, Cure::None)
        } else if let Some(finding) = standing.wrong() {
            (finding, Cure::Stage(seq))
        } else if row.get("eventless")? && !finished {
            (Finding::EventMissing, Cure::Bury(seq))
        } else {
            continue;
        };
        suspects.push(Suspect {
            finding,
            tenant: tenant.unwrap_or_default(),
            subject: row.get("id")?,
            cure,
        });
    }
    Ok(counts)
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

/// Mends what still is wrong; says of each whether it is right now.
fn mend(writer: &Writer, suspects: &[Suspect]) -> Result<Vec<bool>, Fault> {
    let mut tally = Tally::default();
    let mut mended = Vec::with_capacity(suspects.len());
    for suspect in suspects {
        mended.push(match &suspect.cure {
            Cure::None => false,
            Cure::Stage(seq) => stage(writer, *seq, &mut tally)?,
            Cure::Bury(seq) => bury(writer, *seq, &mut tally)?,
            Cure::Turn(lane, sequence) => turn(writer, *lane, sequence, &mut tally)?,
            Cure::Keep(event) => {
                let mut update = writer
                    .connection
                    .prepare_cached("UPDATE events SET bare = 0 WHERE seq = ?1")?;
                update.execute([event])?;
                true
            }
            Cure::Count(lane, change) => {
                let mut select = writer
                    .connection
                    .prepare_cached("SELECT 1 FROM lanes WHERE id = ?1")?;
                // A lane is removed with its last delivery.
                if select.exists([lane])? {
                    tally.correct(*lane, *change);
                }
                true
            }
        });
    }
    tally.apply(writer)?;
    Ok(mended)
}

fn standing(writer: &Writer, seq: i64) -> Result<Option<Standing>, Fault> {
    let found = writer
        .connection
        .prepare_cached(
            "SELECT lane, state, stage, back, next_at, sequence, blocks
             FROM deliveries WHERE seq = ?1",
        )?
        .query_row([seq], Standing::of)
        .optional()?;
    Ok(found)
}

/// Puts a delivery at the stage of its state.
fn stage(writer: &Writer, seq: i64, tally: &mut Tally) -> Result<bool, Fault> {
    let now = writer.clock.now();
    let Some(found) = standing(writer, seq)?.filter(|found| found.wrong().is_some()) else {
        return Ok(true);
    };
    let Some(right) = found.right(now) else {
        return Ok(false);
    };
    moved(writer, seq, &found, right, now, tally)?;
    Ok(true)
}

/// Makes a dead letter of a delivery whose event is gone. One that is leased may just be sent: it is
/// left until the lease has ended.
fn bury(writer: &Writer, seq: i64, tally: &mut Tally) -> Result<bool, Fault> {
    let open = [Some(DeliveryState::Pending), Some(DeliveryState::Failed)];
    let found =
        standing(writer, seq)?.filter(|found| open.contains(&found.state) && !writer.is_held(seq));
    let Some(found) = found else {
        return Ok(false);
    };
    let dead = (DeliveryState::DeadLetter, Stage::DeadLetter);
    moved(writer, seq, &found, dead, writer.clock.now(), tally)?;
    Ok(true)
}

fn moved(
    writer: &Writer,
    seq: i64,
    from: &Standing,
    (to, stage): (DeliveryState, Stage),
    now: i64,
    tally: &mut Tally,
) -> Result<(), Fault> {
    writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, stage = ?3, back = NULL, lease = NULL,
                 lease_until = NULL, updated_at = ?4
             WHERE seq = ?1",
        )?
        .execute(params![seq, rows::state_number(to), stage.number(), now])?;
    if let Some(counted) = from.counted() {
        tally.leave(from.lane, counted);
    }
    tally.enter(from.lane, stage);
    if let Some(sequence) = &from.sequence {
        advance(writer, from.lane, sequence, now, tally)?;
    }
    Ok(())
}

/// Has it be the turn of one delivery of a sequence: of the one that is leased, or that blocks, or of the
/// first. What else is leased or blocks is left, for it may just be sent.
fn turn(writer: &Writer, lane: i64, sequence: &str, tally: &mut Tally) -> Result<bool, Fault> {
    let mut select = writer.connection.prepare_cached(
        "SELECT seq, stage FROM deliveries INDEXED BY deliveries_sequence
         WHERE sequence = ?2 AND lane = ?1 AND stage IN (0, 1, 5) AND stage <> 3
         ORDER BY stage DESC, seq",
    )?;
    let found = select.query_map(params![lane, sequence], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let found: Vec<(i64, i64)> = found.collect::<rusqlite::Result<_>>()?;
    // Those that nobody has begun go by their order alone.
    let begun = |seq, stage| stage == Stage::Blocking.number() || writer.is_held(seq);
    let (found, begun): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(seq, stage)| !begun(*seq, *stage));
    let begun = begun.len();
    let first = match begun {
        0 => found.iter().min().map(|(seq, _)| *seq),
        _ => None,
    };
    let mut update = writer
        .connection
        .prepare_cached("UPDATE deliveries SET stage = 4 WHERE seq = ?1")?;
    for (seq, stage) in found {
        let from = match stage {
            0 => Stage::Ready,
            1 => Stage::Delayed,
            _ => continue,
        };
        if Some(seq) != first {
            update.execute([seq])?;
            tally.leave(lane, from);
            tally.enter(lane, Stage::Behind);
        }
    }
    advance(writer, lane, sequence, writer.clock.now(), tally)?;
    Ok(begun < 2)
}
