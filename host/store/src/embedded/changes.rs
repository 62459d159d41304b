//! What a task of the writer changed of what can be leased, to be told once it is committed.

use super::schedule::{Allowance, Fresh, Place};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Deliveries whose lease ended with an outcome.
    pub(super) ended: Vec<i64>,
    /// Lanes with their tenants, and how many of their deliveries are due now.
    pub(super) lanes: Vec<(i64, i64, usize)>,
    /// Deliveries that became due, by lane.
    pub(super) due: Vec<(i64, Place, Option<Box<Fresh>>)>,
    /// When the first becomes due of those that have begun to wait for their time.
    pub(super) delayed: Option<i64>,
    /// `delayed` is the first of all that wait for their time.
    pub(super) next_delayed: bool,
    pub(super) allowances: Vec<(i64, Allowance)>,
    /// More changed than is told here.
    pub(super) all: bool,
}

impl Changes {
    /// A delivery began to wait for its time.
    pub(super) fn delay(&mut self, until: i64) {
        self.delayed = self.delayed.into_iter().chain([until]).min();
    }

    /// Adds what a later task changed.
    pub(super) fn append(&mut self, mut later: Self) {
        self.ended.append(&mut later.ended);
        self.lanes.append(&mut later.lanes);
        self.due.append(&mut later.due);
        self.allowances.append(&mut later.allowances);
        if later.next_delayed {
            self.delayed = later.delayed;
            self.next_delayed = true;
        } else if let Some(delayed) = later.delayed {
            self.delay(delayed);
        }
        self.all |= later.all;
    }
}
