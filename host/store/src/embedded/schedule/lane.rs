//! A lane: everything due of one endpoint of a tenant.

use super::window::Window;
use crate::stalling::Stalling;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tenant: i64,
    /// Due deliveries by the file, which knows nothing of leases.
    due: usize,
    /// Those of them that somebody holds.
    held: usize,
    /// Those of them that are on their way: what is held, but for what is being recorded.
    flying: usize,
    /// When it had its turn: who was served longest ago is next.
    pub(super) served: u64,
    /// Whether it stands among its tenant's open lanes.
    pub(super) open: bool,
    /// How much its endpoint stalls.
    pub(super) stalling: Stalling,
    pub(super) window: Window,
}

impl Lane {
    /// One of which nothing is due yet.
    pub(super) fn new(tenant: i64, served: u64, stalling: Stalling, window: Window) -> Self {
        Self {
            tenant,
            due: 0,
            held: 0,
            flying: 0,
            served,
            open: false,
            stalling,
            window,
        }
    }

    /// Whether more of it is due than is held, and fewer are on their way than its endpoint may have.
    pub(super) fn can_give(&self, max_per_endpoint: usize) -> bool {
        self.due > self.held && self.flying < self.stalling.part_of(max_per_endpoint)
    }

    /// How many more may be on their way, of so many.
    pub(super) fn room(&self, most: usize) -> usize {
        most.saturating_sub(self.flying)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.due == 0 && self.held == 0
    }

    /// So many are due by the file.
    pub(super) fn count(&mut self, due: usize) {
        self.due = due;
    }

    /// Nothing is due but what is held.
    pub(super) fn has_given_all(&mut self) {
        self.due = self.held;
    }

    /// One more is held.
    pub(super) fn hold(&mut self) {
        self.held += 1;
    }

    /// One less is held.
    pub(super) fn free(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// So many more are on their way.
    pub(super) fn flies(&mut self, more: isize) {
        self.flying = self.flying.saturating_add_signed(more);
    }
}
