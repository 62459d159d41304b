//! What the tasks of the writing thread share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Notify;

use super::changes::Changes;
use super::clock::StoreClock;
use super::lanes::{Stage, Tally};
use super::quotas;
use super::schedule::{Allowance, Fresh, Place, Schedule, Standing};
use super::thread::{Fault, Session};
use crate::stalling::Reaction;

/// The schedule of a host, which its threads share. Each holds it for a moment only.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Schedule>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection that writes, and what it tells the host's schedule.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) clock: Arc<StoreClock>,
    /// What the running task has changed.
    pub(super) changes: RefCell<Changes>,
    /// What tenants may take that have a quota, by name.
    pub(super) quotas: RefCell<HashMap<String, Allowance>>,
    /// What the tasks of the transaction before it have changed.
    gathered: RefCell<Changes>,
    schedule: Arc<Shared>,
    /// Whether this process is the host, which alone leases.
    host: bool,
    /// Changes whenever another process has written.
    version: Cell<i64>,
    wake: Arc<Notify>,
    /// Tells who waits for new work.
    news: Arc<Notify>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        clock: Arc<StoreClock>,
        schedule: Arc<Shared>,
        host: bool,
        wake: Arc<Notify>,
        news: Arc<Notify>,
    ) -> Self {
        Self {
            connection,
            clock,
            changes: RefCell::default(),
            quotas: RefCell::default(),
            gathered: RefCell::default(),
            schedule,
            host,
            version: Cell::new(0),
            wake,
            news,
        }
    }

    /// Reads what there is to do, if this is the host.
    pub(super) fn start(&self) -> Result<(), Fault> {
        if self.host {
            self.version.set(self.version()?);
            self.restart()?;
        }
        Ok(())
    }

    /// The host's schedule; that of a tool is empty.
    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock()
    }

    /// Whether somebody holds this delivery.
    pub(super) fn is_held(&self, seq: i64) -> bool {
        self.schedule().leases().get(seq).is_some()
    }

    /// Begins the end of a lease, if it is in force; its lane. The place is free at once.
    pub(super) fn begin_end(&self, seq: i64, lease: i64) -> Option<i64> {
        let lane = self.schedule().begin_end(seq, lease)?;
        self.changes.borrow_mut().ended.push(seq);
        Some(lane)
    }

    /// Notes what an attempt says of the endpoint of a lane.
    pub(super) fn note(&self, lane: i64, reaction: Reaction) {
        self.schedule().note(lane, reaction);
    }

    /// A delivery came to this stage; its place is when it is due, and its number.
    pub(super) fn place(&self, tally: &mut Tally, lane: i64, stage: Stage, place: Place) {
        tally.enter(lane, stage);
        match stage {
            Stage::Ready => self.changes.borrow_mut().due.push((lane, place, None)),
            Stage::Delayed => self.changes.borrow_mut().delay(place.0),
            _ => {}
        }
    }

    /// A delivery was enqueued that is due at once.
    pub(super) fn place_fresh(&self, tally: &mut Tally, lane: i64, place: Place, fresh: Fresh) {
        tally.enter(lane, Stage::Ready);
        let mut changes = self.changes.borrow_mut();
        changes.due.push((lane, place, Some(Box::new(fresh))));
    }

    /// Has those who wait for work look for it.
    pub(super) fn wake_for_work(&self) {
        if self.schedule().has_work() {
            self.wake.notify_waiters();
        }
    }

    fn version(&self) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))
    }

    /// Makes the schedule anew from the file.
    fn restart(&self) -> Result<(), Fault> {
        let named = quotas::named(&self.connection)?;
        // Held while the file is read, so that no lease is of another time than what is read.
        let mut schedule = self.schedule();
        schedule.restart(Standing {
            lanes: super::lanes::due(&self.connection)?,
            allowances: quotas::numbered(&self.connection)?,
            next_delayed: super::lease::next_delayed(&self.connection)?,
        });
        self.quotas.replace(named);
        Ok(())
    }

    fn tell(&self, changes: Changes) -> Result<(), Fault> {
        if !self.host {
            return Ok(());
        }
        let all = changes.all;
        let mut news = {
            let mut schedule = self.schedule();
            let news = schedule.apply(changes);
            if schedule.has_new_work() {
                self.news.notify_one();
            }
            news
        };
        let version = self.version()?;
        if all || version != self.version.get() {
            self.restart()?;
            self.version.set(version);
            news = true;
        }
        if news {
            self.wake.notify_waiters();
        }
        Ok(())
    }

    fn undo(&self, changes: Changes) {
        let mut schedule = self.schedule();
        for seq in changes.ended {
            schedule.keep(seq);
        }
    }
}

impl Session for Writer {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn kept(&self) {
        let changes = self.changes.take();
        self.gathered.borrow_mut().append(changes);
    }

    fn undone(&self) {
        self.undo(self.changes.take());
    }

    fn after(&self, committed: bool) {
        let changes = self.gathered.take();
        if !committed {
            self.undo(changes);
        } else if let Err(fault) = self.tell(changes) {
            // The next transaction tries again.
            tracing::error!(?fault, "the embedded store could not read what is due");
            self.version.set(-1);
        }
    }
}
