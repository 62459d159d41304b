//! A queue to be damaged, and how it comes out of that.

use std::ops::Range;

use wasmhook_store::{CheckReport, Finding, Leased, Store};

use crate::in_order::{drains_in_order, put_in_order};
use crate::steps::{OPEN, fill};
use crate::verdict::{drains, finds_and_mends};

/// A store, what it keeps its records in, and the leases that its workers hold. Each kind of store has a
/// `damage` of its own.
pub(crate) struct Queue<S, B> {
    pub(crate) store: S,
    pub(crate) beneath: B,
    pub(crate) held: Vec<Leased>,
}

impl<S: Store, B> Queue<S, B> {
    pub(crate) fn empty((beneath, store): (B, S)) -> Self {
        Self {
            store,
            beneath,
            held: Vec::new(),
        }
    }

    /// With deliveries in every state.
    pub(crate) async fn full(made: (B, S)) -> Self {
        let mut queue = Self::empty(made);
        queue.held = fill(&queue.store).await;
        queue
    }

    /// With so many deliveries in one sequence, the first of which is leased.
    pub(crate) async fn in_order(made: (B, S), count: usize) -> Self {
        let mut queue = Self::empty(made);
        queue.held = put_in_order(&queue.store, count).await;
        queue
    }

    /// Gives up all leases.
    pub(crate) async fn release(&mut self) {
        self.store.release(&self.held).await.unwrap();
        self.held.clear();
    }

    /// Its damage is found and mended.
    pub(crate) async fn finds(&self, expected: Finding) -> CheckReport {
        finds_and_mends(&self.store, expected).await
    }

    /// Gives so many deliveries, each once, and nothing more.
    pub(crate) async fn drains(self, expected: usize) {
        drains(&self.store, self.held, expected).await;
    }

    /// The damage of a full queue is found and mended, and what was due or leased comes, once.
    pub(crate) async fn recovers(self, expected: Finding) -> CheckReport {
        let report = self.finds(expected).await;
        self.drains(OPEN).await;
        report
    }

    /// The damage of a sequence is found and mended, and these events come, in order.
    pub(crate) async fn recovers_in_order(
        self,
        expected: Finding,
        events: Range<usize>,
    ) -> CheckReport {
        let report = self.finds(expected).await;
        drains_in_order(&self.store, self.held, events).await;
        report
    }
}
