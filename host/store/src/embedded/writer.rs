//! What the tasks of the writing thread share.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::Notify;

use super::clock::StoreClock;
use super::thread::Session;

/// The connection that writes, and what the next lease needs to remember.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) clock: Arc<StoreClock>,
    /// Where the next lease goes on with its round of the tenants.
    pub(super) last_tenant: Cell<i64>,
    /// The tenant that got only a part of its turn in the last round, and what is left of it.
    pub(super) begun: Cell<(i64, usize)>,
    last_number: Cell<i64>,
    news: Cell<bool>,
    wake: Arc<Notify>,
}

impl Writer {
    pub(super) fn new(connection: Connection, clock: Arc<StoreClock>, wake: Arc<Notify>) -> Self {
        // Lease numbers begin anywhere, so that a token from before a restart fits no lease after.
        let start = RandomState::new().build_hasher().finish() >> 2;
        Self {
            connection,
            clock,
            last_tenant: Cell::new(0),
            begun: Cell::new((0, 0)),
            last_number: Cell::new(i64::try_from(start).unwrap_or(0)),
            news: Cell::new(false),
            wake,
        }
    }

    /// A number that no lease has had.
    pub(super) fn next_lease(&self) -> i64 {
        self.last_number.set(self.last_number.get() + 1);
        self.last_number.get()
    }

    /// Has those who wait for work woken after the commit.
    pub(super) fn announce(&self, news: bool) {
        self.news.set(self.news.get() || news);
    }
}

impl Session for Writer {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn after(&self, committed: bool) {
        if self.news.take() && committed {
            self.wake.notify_waiters();
        }
    }
}
