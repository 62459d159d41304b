//! Tenants that had nothing to lease until something was enqueued for them: they need not wait for places that
//! others hold for long. Who had a turn since is none any more, whatever it left.

use std::collections::BTreeSet;

use super::tenants::Tenants;
use super::turns::Turn;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Newcomers(BTreeSet<i64>);

impl Newcomers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These got something to lease, who had nothing.
    pub(super) fn add(&mut self, tenants: impl Iterator<Item = i64>) {
        self.0.extend(tenants);
    }

    /// This one had a turn in the round of all.
    pub(super) fn served(&mut self, tenant: i64) {
        self.0.remove(&tenant);
    }

    /// A turn for each of so many, which are none any more.
    pub(super) fn turns(&mut self, tenants: &Tenants, limit: usize) -> Vec<Turn> {
        let mut turns = Vec::new();
        while turns.len() < limit
            && let Some(tenant) = self.0.pop_first()
        {
            if tenants.has_open(tenant) {
                turns.push(Turn::out_of_round(tenant, tenants));
            }
        }
        turns
    }
}
