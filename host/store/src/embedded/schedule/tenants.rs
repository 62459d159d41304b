//! Which tenants can be served, and how much each may take.
//!
//! A tenant stands in the ring while it has an open lane and may have more in flight. That follows from
//! counts and from its allowance, so every change of them ends in [`Tenants::settle`].

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

/// What a tenant may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct Allowance {
    /// Its turns for one of another.
    pub(in crate::embedded) weight: usize,
    /// The most that it may have in flight.
    pub(in crate::embedded) most: Option<usize>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            weight: 1,
            most: None,
        }
    }
}

/// When a lane was served, and which lane: the order in which a tenant's lanes have their turns.
pub(super) type Served = (u64, i64);

/// A tenant with lanes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tenant {
    lanes: usize,
    flying: usize,
    /// Lanes that can give something.
    open: BTreeSet<Served>,
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tenants {
    with_lanes: HashMap<i64, Tenant>,
    /// Those that have an open lane and may have more in flight.
    ring: BTreeSet<i64>,
    allowances: HashMap<i64, Allowance>,
}

// Who can be served.
impl Tenants {
    /// Whether somebody can be served.
    pub(super) fn is_open(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether this one can be served.
    pub(super) fn has_open(&self, tenant: i64) -> bool {
        self.ring.contains(&tenant)
    }

    /// Those that can be served, from the one behind `last` once around.
    pub(super) fn open(&self, last: i64) -> impl Iterator<Item = i64> {
        let later = self.ring.range((Bound::Excluded(last), Bound::Unbounded));
        later.chain(self.ring.range(..=last)).copied()
    }

    /// How many can be served.
    pub(super) fn count_open(&self) -> usize {
        self.ring.len()
    }

    /// How many a tenant has on their way.
    pub(super) fn flying(&self, tenant: i64) -> usize {
        self.with_lanes
            .get(&tenant)
            .map_or(0, |tenant| tenant.flying)
    }

    /// The open lanes of a tenant; who was served longest ago is first.
    pub(super) fn open_lanes(&self, tenant: i64) -> impl Iterator<Item = i64> {
        let open = self.with_lanes.get(&tenant).into_iter();
        open.flat_map(|tenant| &tenant.open).map(|(_, lane)| *lane)
    }

    pub(super) fn allowance(&self, tenant: i64) -> Allowance {
        self.allowances.get(&tenant).copied().unwrap_or_default()
    }

    /// How many more a tenant may have in flight.
    pub(super) fn room(&self, tenant: i64) -> usize {
        let most = self.allowance(tenant).most;
        most.map_or(usize::MAX, |most| most.saturating_sub(self.flying(tenant)))
    }
}

// What changes.
impl Tenants {
    /// Of no tenant with lanes.
    pub(super) fn with_allowances(allowances: HashMap<i64, Allowance>) -> Self {
        Self {
            allowances,
            ..Self::default()
        }
    }

    /// Sets what a tenant may take.
    pub(super) fn allow(&mut self, tenant: i64, allowance: Allowance) {
        if allowance == Allowance::default() {
            self.allowances.remove(&tenant);
        } else {
            self.allowances.insert(tenant, allowance);
        }
        self.settle(tenant);
    }

    /// A tenant has one more lane, which is closed.
    pub(super) fn add_lane(&mut self, tenant: i64) {
        self.with_lanes.entry(tenant).or_default().lanes += 1;
    }

    /// A tenant has one lane less, which was closed.
    pub(super) fn remove_lane(&mut self, tenant: i64) {
        self.change(tenant, |tenant| tenant.lanes -= 1);
    }

    /// A lane has something to give from now on.
    pub(super) fn open_lane(&mut self, tenant: i64, served: Served) {
        self.change(tenant, |tenant| _ = tenant.open.insert(served));
    }

    /// A lane has nothing to give from now on.
    pub(super) fn close_lane(&mut self, tenant: i64, served: Served) {
        self.change(tenant, |tenant| _ = tenant.open.remove(&served));
    }

    /// An open lane has its turn at another time.
    pub(super) fn move_lane(&mut self, tenant: i64, from: Served, to: Served) {
        if let Some(tenant) = self.with_lanes.get_mut(&tenant)
            && tenant.open.remove(&from)
        {
            tenant.open.insert(to);
        }
    }

    /// So many more of a tenant are on their way.
    pub(super) fn flies(&mut self, tenant: i64, more: isize) {
        self.change(tenant, |tenant| {
            tenant.flying = tenant.flying.saturating_add_signed(more);
        });
    }

    fn change(&mut self, id: i64, change: impl FnOnce(&mut Tenant)) {
        if let Some(tenant) = self.with_lanes.get_mut(&id) {
            change(tenant);
            self.settle(id);
        }
    }

    /// Puts a tenant into the ring or takes it out; forgets it when it has no lanes.
    fn settle(&mut self, id: i64) {
        let Some(tenant) = self.with_lanes.get(&id) else {
            return;
        };
        let most = self.allowance(id).most.unwrap_or(usize::MAX);
        if !tenant.open.is_empty() && tenant.flying < most {
            self.ring.insert(id);
        } else {
            self.ring.remove(&id);
        }
        if tenant.lanes == 0 {
            self.with_lanes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenant 1 with lane 7 open.
    fn tenants() -> Tenants {
        let mut tenants = Tenants::default();
        tenants.add_lane(1);
        tenants.open_lane(1, (0, 7));
        tenants
    }

    #[test]
    fn a_tenant_leaves_the_ring_when_it_has_all_that_it_may_have() {
        let mut tenants = tenants();
        let two = Allowance {
            weight: 1,
            most: Some(2),
        };
        tenants.allow(1, two);
        tenants.flies(1, 1);
        assert_eq!((tenants.room(1), tenants.is_open()), (1, true));
        tenants.flies(1, 1);
        assert_eq!((tenants.room(1), tenants.is_open()), (0, false));
        tenants.flies(1, -1);
        assert_eq!((tenants.room(1), tenants.is_open()), (1, true));
    }

    #[test]
    fn another_allowance_counts_at_once() {
        let mut tenants = tenants();
        tenants.flies(1, 1);
        let one = Allowance {
            weight: 1,
            most: Some(1),
        };
        tenants.allow(1, one);
        assert!(!tenants.is_open());
        tenants.allow(1, Allowance::default());
        assert!(tenants.is_open());
    }

    #[test]
    fn nothing_is_kept_of_a_tenant_without_lanes() {
        let mut tenants = tenants();
        tenants.close_lane(1, (0, 7));
        tenants.remove_lane(1);
        assert_eq!(tenants, Tenants::default());
    }
}
