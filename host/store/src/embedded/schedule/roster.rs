//! Which lanes can give something, and which tenants may take more.
//!
//! A lane is open while more of it is due than is held and fewer are on their way than one endpoint may
//! have; a tenant stands in the ring while it has an open lane and may have more in flight. Both follow
//! from counts, so every change of a count ends in [`Roster::settle`].

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::super::leases::Leases;
use super::Fault;
use super::window::{Budget, Fresh, Place, Window};

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

/// Due places of a lane behind one, in order, at most so many, from the file.
pub(in crate::embedded) type Source<'a> =
    dyn FnMut(i64, Place, usize) -> Result<Vec<Place>, Fault> + 'a;

/// Everything due of one endpoint of a tenant.
#[derive(Debug)]
struct Lane {
    tenant: i64,
    /// Due deliveries by the file, which knows nothing of leases.
    due: usize,
    /// Those of them that somebody holds.
    held: usize,
    /// Those of them that are on their way: what is held, but for what is being recorded.
    flying: usize,
    /// When it had its turn: who was served longest ago is next.
    served: u64,
    /// Whether it stands among its tenant's open lanes.
    open: bool,
    window: Window,
}

/// A tenant with lanes.
#[derive(Debug, Default)]
struct Tenant {
    lanes: usize,
    flying: usize,
    /// Lanes that have something due and room for it, by when they were served.
    open: BTreeSet<(u64, i64)>,
}

/// What a lane gives next.
pub(super) enum Next {
    /// Nothing: it is not open.
    Nothing,
    /// More than is known of it; see [`Roster::read_on`].
    Unread,
    Due {
        tenant: i64,
        place: Place,
        fresh: Option<Box<Fresh>>,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Roster {
    lanes: HashMap<i64, Lane>,
    tenants: HashMap<i64, Tenant>,
    /// Tenants that have an open lane and may have more in flight.
    ring: BTreeSet<i64>,
    allowances: HashMap<i64, Allowance>,
    max_per_endpoint: usize,
    budget: Budget,
    /// How many turns lanes have had.
    turns: u64,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            tenants: HashMap::new(),
            ring: BTreeSet::new(),
            allowances: HashMap::new(),
            max_per_endpoint: usize::MAX,
            budget: Budget::default(),
            turns: 0,
        }
    }
}

// Whose turn it can be.
impl Roster {
    /// Whether somebody can be served.
    pub(super) fn is_open(&self) -> bool {
        !self.ring.is_empty()
    }

    pub(super) fn allowance(&self, tenant: i64) -> Allowance {
        self.allowances.get(&tenant).copied().unwrap_or_default()
    }

    /// The tenants that can be served, from the one behind `last` once around.
    pub(super) fn open_tenants(&self, last: i64) -> impl Iterator<Item = i64> {
        let later = self.ring.range((Bound::Excluded(last), Bound::Unbounded));
        later.chain(self.ring.range(..=last)).copied()
    }

    /// How many more a tenant may have in flight.
    pub(super) fn room(&self, tenant: i64) -> usize {
        let flying = self.tenants.get(&tenant).map_or(0, |tenant| tenant.flying);
        let most = self.allowance(tenant).most;
        most.map_or(usize::MAX, |most| most.saturating_sub(flying))
    }

    /// The open lanes of a tenant; who was served longest ago is first.
    pub(super) fn open_lanes(&self, tenant: i64) -> impl Iterator<Item = i64> {
        let open = self.tenants.get(&tenant).into_iter();
        open.flat_map(|tenant| &tenant.open).map(|(_, lane)| *lane)
    }
}

// What a lane gives.
impl Roster {
    /// Takes the first place of a lane out of what is known of it.
    pub(super) fn next(&mut self, id: i64) -> Next {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.open) else {
            return Next::Nothing;
        };
        match lane.window.take(&mut self.budget) {
            Some((place, fresh)) => Next::Due {
                tenant: lane.tenant,
                place,
                fresh,
            },
            None => Next::Unread,
        }
    }

    /// Reads on in a lane behind what is known of it.
    pub(super) fn read_on(
        &mut self,
        id: i64,
        wanted: usize,
        leases: &Leases,
        source: &mut Source<'_>,
    ) -> Result<(), Fault> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Ok(());
        };
        let free = |seq| leases.get(seq).is_none();
        let source = |after, limit| source(id, after, limit);
        let read = lane
            .window
            .read_on(wanted, free, source, &mut self.budget)?;
        if !read {
            // The file has less than it counts, which a check mends.
            lane.due = lane.held;
            self.settle(id);
        }
        Ok(())
    }

    /// A delivery of the lane is due that nobody holds.
    pub(super) fn enter(&mut self, id: i64, place: Place, fresh: Option<Box<Fresh>>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.window.enter(place, fresh, &mut self.budget);
        }
    }
}

// The counts.
impl Roster {
    /// Begins anew with the leases in force (lane, tenant, and whether its outcome is being written) and
    /// what the file says is due (lane, tenant, and how many). Lanes keep their order.
    pub(super) fn restart(
        &mut self,
        allowances: HashMap<i64, Allowance>,
        held: impl Iterator<Item = (i64, i64, bool)>,
        due: Vec<(i64, i64, usize)>,
    ) {
        for lane in self.lanes.values_mut() {
            lane.window.forget(&mut self.budget);
        }
        let before = std::mem::take(&mut self.lanes);
        self.tenants.clear();
        self.ring.clear();
        self.allowances = allowances;
        for (id, tenant, ending) in held {
            self.lane(id, tenant, Window::unknown).held += 1;
            if !ending {
                self.flies(id, tenant, 1);
            }
        }
        for (id, tenant, due) in due {
            self.count(id, tenant, due, Window::unknown);
        }
        for (id, old) in before {
            self.set_served(id, old.served);
        }
    }

    /// Sets what a tenant may take.
    pub(super) fn allow(&mut self, tenant: i64, allowance: Allowance) {
        if allowance == Allowance::default() {
            self.allowances.remove(&tenant);
        } else {
            self.allowances.insert(tenant, allowance);
        }
    }

    /// Which lanes are open depends on the bound, so they are looked at again when it changes.
    pub(super) fn set_max_per_endpoint(&mut self, most: usize) {
        if self.max_per_endpoint != most {
            self.max_per_endpoint = most;
            let lanes: Vec<i64> = self.lanes.keys().copied().collect();
            for lane in lanes {
                self.settle(lane);
            }
        }
    }

    /// Sets how many deliveries of a lane are due; a lane that is new gets this window.
    pub(super) fn count(&mut self, id: i64, tenant: i64, due: usize, window: fn() -> Window) {
        if due == 0 && !self.lanes.contains_key(&id) {
            return;
        }
        self.lane(id, tenant, window).due = due;
        self.settle(id);
    }

    /// One more of the lane is held, and on its way.
    pub(super) fn hold(&mut self, id: i64, tenant: i64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held += 1;
        }
        self.flies(id, tenant, 1);
    }

    /// One of the lane is held no longer; `landed` when it was on its way no longer before.
    pub(super) fn free(&mut self, id: i64, tenant: i64, landed: bool) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.held = lane.held.saturating_sub(1);
        }
        if !landed {
            self.flies(id, tenant, -1);
        }
        self.settle(id);
    }

    /// So many more of the lane are on their way.
    pub(super) fn flies(&mut self, id: i64, tenant: i64, more: isize) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.flying = lane.flying.saturating_add_signed(more);
        }
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.flying = tenant.flying.saturating_add_signed(more);
        }
        self.settle(id);
    }

    /// The lane had its turn.
    pub(super) fn served(&mut self, id: i64) {
        self.turns += 1;
        self.set_served(id, self.turns);
    }

    fn set_served(&mut self, id: i64, served: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.open
            && let Some(tenant) = self.tenants.get_mut(&lane.tenant)
        {
            tenant.open.remove(&(lane.served, id));
            tenant.open.insert((served, id));
        }
        lane.served = served;
    }

    fn lane(&mut self, id: i64, tenant: i64, window: fn() -> Window) -> &mut Lane {
        self.lanes.entry(id).or_insert_with(|| {
            self.tenants.entry(tenant).or_default().lanes += 1;
            self.turns += 1;
            Lane {
                tenant,
                due: 0,
                held: 0,
                flying: 0,
                served: self.turns,
                open: false,
                window: window(),
            }
        })
    }

    /// Opens or closes a lane by its counts, and its tenant's place in the ring; forgets both when
    /// nothing is left of them.
    fn settle(&mut self, id: i64) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let tenant = lane.tenant;
        let open = lane.due > lane.held && lane.flying < self.max_per_endpoint;
        let Some(owner) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if open != lane.open {
            lane.open = open;
            if open {
                owner.open.insert((lane.served, id));
            } else {
                owner.open.remove(&(lane.served, id));
            }
        }
        if lane.due == 0 && lane.held == 0 {
            lane.window.forget(&mut self.budget);
            self.lanes.remove(&id);
            owner.lanes -= 1;
        }
        self.settle_tenant(tenant);
    }

    fn settle_tenant(&mut self, id: i64) {
        let most = self.allowance(id).most.unwrap_or(usize::MAX);
        let Some(tenant) = self.tenants.get(&id) else {
            return;
        };
        if !tenant.open.is_empty() && tenant.flying < most {
            self.ring.insert(id);
        } else {
            self.ring.remove(&id);
        }
        if tenant.lanes == 0 {
            self.tenants.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_lanes(roster: &Roster) -> Vec<i64> {
        roster.open_lanes(1).collect()
    }

    /// Lanes 7 and 8 of tenant 1 with so many due.
    fn roster(due: usize) -> Roster {
        let mut roster = Roster::default();
        for lane in [7, 8] {
            roster.count(lane, 1, due, Window::of_empty_lane);
        }
        roster
    }

    #[test]
    fn a_lane_is_open_while_more_is_due_than_held() {
        let mut roster = roster(1);
        roster.hold(7, 1);
        assert_eq!(open_lanes(&roster), [8]);
        roster.hold(8, 1);
        assert!(open_lanes(&roster).is_empty() && !roster.is_open());
        roster.free(7, 1, false);
        assert_eq!(open_lanes(&roster), [7]);
    }

    #[test]
    fn a_lower_bound_closes_lanes_and_a_higher_one_opens_them() {
        let mut roster = roster(5);
        roster.hold(7, 1);
        roster.set_max_per_endpoint(1);
        assert_eq!(open_lanes(&roster), [8]);
        roster.set_max_per_endpoint(2);
        assert_eq!(open_lanes(&roster), [7, 8]);
    }

    #[test]
    fn a_tenant_leaves_the_ring_when_it_has_all_that_it_may_have() {
        let mut roster = roster(5);
        let two = Allowance {
            weight: 1,
            most: Some(2),
        };
        roster.allow(1, two);
        roster.hold(7, 1);
        assert_eq!((roster.room(1), roster.is_open()), (1, true));
        roster.hold(8, 1);
        assert_eq!((roster.room(1), roster.is_open()), (0, false));
        // Its place is free as soon as its outcome is being written.
        roster.flies(7, 1, -1);
        assert_eq!((roster.room(1), roster.is_open()), (1, true));
    }

    #[test]
    fn lanes_keep_their_order_over_a_restart() {
        let mut roster = roster(5);
        roster.served(7);
        assert_eq!(open_lanes(&roster), [8, 7]);
        let due = vec![(7, 1, 5), (8, 1, 5)];
        roster.restart(HashMap::new(), std::iter::empty(), due);
        assert_eq!(open_lanes(&roster), [8, 7]);
    }

    #[test]
    fn nothing_is_kept_of_a_tenant_that_has_nothing_due() {
        let mut roster = roster(1);
        for lane in [7, 8] {
            roster.hold(lane, 1);
            roster.count(lane, 1, 0, Window::of_empty_lane);
            roster.free(lane, 1, false);
        }
        assert!(roster.lanes.is_empty() && roster.tenants.is_empty() && roster.ring.is_empty());
    }
}
