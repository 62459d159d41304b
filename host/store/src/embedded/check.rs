//! Checking the tables' invariants and mending them, while hosts work.
//!
//! A connection of its own reads everything in one transaction: a picture of one moment, that holds up
//! nobody. What is wrong in it is mended by the thread that writes, a bounded number at a time, after
//! another look. Counts are mended by the difference that the picture shows: all changes to them are
//! differences too, so what happened since stays counted. For the same reason one repair runs at a time.

mod find;
mod lock;
mod mend;
mod standing;

use self::find::picture;
use self::lock::RepairLock;
use self::mend::mend;
use super::EmbeddedStore;
use super::lanes::STAGES;
use super::thread;
use super::writer::Writer;
use crate::check::{CheckReport, CheckRequest, Finding};
use crate::error::StoreError;

/// Rows mended in one task of the writer.
const MENDED: usize = 100;

/// Something that the writer may be able to mend.
struct Suspect {
    finding: Finding,
    tenant: String,
    subject: String,
    cure: Cure,
}

/// What would mend it.
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

impl EmbeddedStore {
    pub(super) async fn check_all(&self, request: CheckRequest) -> Result<CheckReport, StoreError> {
        let lock = if request.repair {
            Some(RepairLock::take(&self.folder.database)?)
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
        drop(lock);
        // The file does not tell what is leased of what is due.
        let leased = u64::try_from(self.holdings().count()).unwrap_or(0);
        report.looked.leased = leased.min(report.looked.due);
        report.looked.due -= report.looked.leased;
        Ok(report)
    }
}
