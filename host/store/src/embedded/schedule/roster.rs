//! Which lanes can give something, and what each gives next.
//!
//! A lane is open while it can give something. That follows from its counts, so every change of a count
//! ends in [`Roster::settle`], which tells the lane's tenant too.

use std::collections::HashMap;

use super::super::leases::Leases;
use super::Fault;
use super::lane::Lane;
use super::tenants::{Allowance, Tenants};
use super::window::{Budget, Fresh, Place, Window};
use crate::stalling::{Reaction, Stalling};

/// Endpoints of which it is kept that they stall. With more, all of it is forgotten: after some attempts it is known
/// again of those that still do.
const MOST_STALLING: usize = 10_000;

/// Due places of a lane behind one, in order, at most so many, from the file.
pub(in crate::embedded) type Source<'a> =
    dyn FnMut(i64, Place, usize) -> Result<Vec<Place>, Fault> + 'a;

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
    tenants: Tenants,
    max_per_endpoint: usize,
    /// How much the endpoints of lanes stall, also of those that have nothing due just now.
    stalling: HashMap<i64, Stalling>,
    budget: Budget,
    /// How many turns lanes have had.
    turns: u64,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            tenants: Tenants::default(),
            max_per_endpoint: usize::MAX,
            stalling: HashMap::new(),
            budget: Budget::default(),
            turns: 0,
        }
    }
}

// What is asked of it.
impl Roster {
    /// Whose turn it can be.
    pub(super) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Whether the endpoint of a lane is held back.
    pub(super) fn stalls(&self, lane: i64) -> bool {
        let stalling = self.stalling.get(&lane);
        stalling.is_some_and(|stalling| stalling.holds_back())
    }

    /// How many endpoints stall.
    pub(super) fn stalling(&self) -> usize {
        self.stalling.len()
    }

    /// How many more of a lane may be on their way, of so many.
    pub(super) fn room(&self, id: i64, most: usize) -> usize {
        self.lanes.get(&id).map_or(0, |lane| lane.room(most))
    }

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
            lane.has_given_all();
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

// What changes.
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
        self.tenants = Tenants::with_allowances(allowances);
        for (id, tenant, ending) in held {
            self.lane(id, tenant, Window::unknown).hold();
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
        self.tenants.allow(tenant, allowance);
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

    /// Notes what an attempt says of the endpoint of a lane.
    pub(super) fn note(&mut self, id: i64, reaction: Reaction) {
        let before = self.stalling.get(&id).copied().unwrap_or_default();
        let now = before.after(reaction);
        if now == before {
            return;
        }
        if now.is_none() {
            self.stalling.remove(&id);
        } else {
            if self.stalling.len() >= MOST_STALLING {
                self.forget_stalling();
            }
            self.stalling.insert(id, now);
        }
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.stalling = now;
        }
        self.settle(id);
    }

    fn forget_stalling(&mut self) {
        let forgotten: Vec<i64> = self.stalling.drain().map(|(id, _)| id).collect();
        for id in forgotten {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.stalling = Stalling::default();
            }
            self.settle(id);
        }
    }

    /// Sets how many deliveries of a lane are due; a lane that is new gets this window.
    pub(super) fn count(&mut self, id: i64, tenant: i64, due: usize, window: fn() -> Window) {
        if due == 0 && !self.lanes.contains_key(&id) {
            return;
        }
        self.lane(id, tenant, window).count(due);
        self.settle(id);
    }

    /// One more of the lane is held, and on its way.
    pub(super) fn hold(&mut self, id: i64, tenant: i64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.hold();
        }
        self.flies(id, tenant, 1);
    }

    /// One of the lane is held no longer; `landed` when it was on its way no longer before.
    pub(super) fn free(&mut self, id: i64, tenant: i64, landed: bool) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.free();
        }
        if !landed {
            self.flies(id, tenant, -1);
        }
        self.settle(id);
    }

    /// So many more of the lane are on their way.
    pub(super) fn flies(&mut self, id: i64, tenant: i64, more: isize) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.flies(more);
        }
        self.tenants.flies(tenant, more);
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
        if lane.open {
            let (from, to) = ((lane.served, id), (served, id));
            self.tenants.move_lane(lane.tenant, from, to);
        }
        lane.served = served;
    }

    fn lane(&mut self, id: i64, tenant: i64, window: fn() -> Window) -> &mut Lane {
        self.lanes.entry(id).or_insert_with(|| {
            self.tenants.add_lane(tenant);
            self.turns += 1;
            let stalling = self.stalling.get(&id).copied().unwrap_or_default();
            Lane::new(tenant, self.turns, stalling, window())
        })
    }

    /// Opens or closes a lane by its counts; forgets it when nothing is left of it.
    fn settle(&mut self, id: i64) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let (tenant, served) = (lane.tenant, (lane.served, id));
        let open = lane.can_give(self.max_per_endpoint);
        if open != lane.open {
            lane.open = open;
            if open {
                self.tenants.open_lane(tenant, served);
            } else {
                self.tenants.close_lane(tenant, served);
            }
        }
        if lane.is_empty() {
            lane.window.forget(&mut self.budget);
            self.lanes.remove(&id);
            self.tenants.remove_lane(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_lanes(roster: &Roster) -> Vec<i64> {
        roster.tenants.open_lanes(1).collect()
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
        assert!(open_lanes(&roster).is_empty() && !roster.tenants.is_open());
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
    fn the_place_of_what_is_held_is_free_as_soon_as_its_outcome_is_being_written() {
        let mut roster = roster(5);
        let one = Allowance {
            weight: 1,
            most: Some(1),
        };
        roster.allow(1, one);
        roster.hold(7, 1);
        assert_eq!(roster.tenants.room(1), 0);
        roster.flies(7, 1, -1);
        assert_eq!(roster.tenants.room(1), 1);
        // It landed before, so it does not land again when its end is committed.
        roster.hold(8, 1);
        roster.free(7, 1, true);
        assert_eq!(roster.tenants.room(1), 0);
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
        assert!(roster.lanes.is_empty());
        assert_eq!(roster.tenants, Tenants::default());
    }
}
