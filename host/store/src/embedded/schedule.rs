//! What can be leased, and who holds what, in the memory of the host.
//!
//! It follows the file: the writer tells it of its changes once they are committed ([`Changes`]), and has
//! it made anew when another process wrote. So a lease writes nothing, and waits for no disk.
//!
//! Tenants take turns, and so do a tenant's lanes. Only lanes that can give something are looked at: the
//! cost of a lease grows neither with the backlog nor with tenants that have nothing due.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::changes::Changes;
use super::leases::{Held, Leases};
use super::share::{Sharer, share};
use super::thread::Fault;
use super::window::{Budget, Fresh, Place, Window};

/// So many places of a lane are read at a time while there is room to keep them.
const READ: usize = 256;

/// What a tenant may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Its turns for one of another.
    pub(super) weight: usize,
    /// The most that it may have in flight.
    pub(super) most: Option<usize>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            weight: 1,
            most: None,
        }
    }
}

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

/// A delivery that was leased; its row is to be read if it is not at hand.
#[derive(Debug)]
pub(super) struct Picked {
    /// Its place among those of its tenant.
    pub(super) rank: usize,
    pub(super) seq: i64,
    pub(super) lease: i64,
    pub(super) fresh: Option<Box<Fresh>>,
}

/// A call that leases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) max: usize,
    pub(super) max_per_endpoint: usize,
    /// When the leases end.
    pub(super) until: i64,
}

/// Due places of a lane behind one, in order, at most so many, from the file.
pub(super) type Source<'a> = dyn FnMut(i64, Place, usize) -> Result<Vec<Place>, Fault> + 'a;

/// What the file says of all that is due.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Lane, tenant, and how many are due.
    pub(super) lanes: Vec<(i64, i64, usize)>,
    pub(super) allowances: HashMap<i64, Allowance>,
    /// When the next delivery becomes due that waits for its time.
    pub(super) next_delayed: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    lanes: HashMap<i64, Lane>,
    tenants: HashMap<i64, Tenant>,
    /// Tenants that have an open lane and may have more in flight.
    ring: BTreeSet<i64>,
    allowances: HashMap<i64, Allowance>,
    leases: Leases,
    next_delayed: Option<i64>,
    max_per_endpoint: usize,
    budget: Budget,
    turns: u64,
    /// Where the next lease goes on with its round of the tenants.
    last_tenant: i64,
    /// The tenant that got only a part of its turn in the last round, and what is left of it.
    begun: (i64, usize),
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            tenants: HashMap::new(),
            ring: BTreeSet::new(),
            allowances: HashMap::new(),
            leases: Leases::default(),
            next_delayed: None,
            max_per_endpoint: usize::MAX,
            budget: Budget::default(),
            turns: 0,
            last_tenant: 0,
            begun: (0, 0),
        }
    }
}

// What the writer tells.
impl Schedule {
    /// Begins the end of a lease, if it is in force: its place is free, and its delivery is nobody
    /// else's until [`Self::keep`] or a commit. Its lane.
    pub(super) fn begin_end(&mut self, seq: i64, lease: i64) -> Option<i64> {
        let held = self.leases.begin_end(seq, lease)?;
        let (lane, tenant) = (held.lane, held.tenant);
        self.flies(lane, tenant, -1);
        Some(lane)
    }

    /// The outcome of a lease was not written.
    pub(super) fn keep(&mut self, seq: i64) {
        if let Some(held) = self.leases.keep(seq) {
            let (lane, tenant) = (held.lane, held.tenant);
            self.flies(lane, tenant, 1);
        }
    }

    /// Takes over what was committed. Whether there is something new to do.
    pub(super) fn apply(&mut self, changes: Changes) -> bool {
        let news = !changes.due.is_empty() || changes.delayed.is_some() || changes.next_delayed;
        for (tenant, allowance) in changes.allowances {
            if allowance == Allowance::default() {
                self.allowances.remove(&tenant);
            } else {
                self.allowances.insert(tenant, allowance);
            }
        }
        for seq in changes.ended {
            self.end(seq);
        }
        for (lane, tenant, due) in changes.lanes {
            self.count(lane, tenant, due, Window::of_empty_lane);
        }
        for (lane, place, fresh) in changes.due {
            // One that was read from the file before this was told may be held already.
            if self.leases.get(place.1).is_none()
                && let Some(lane) = self.lanes.get_mut(&lane)
            {
                lane.window.enter(place, fresh, &mut self.budget);
            }
        }
        if changes.next_delayed {
            self.next_delayed = None;
        }
        self.next_delayed = self.next_delayed.into_iter().chain(changes.delayed).min();
        news
    }

    /// Begins anew with what the file says; leases go on.
    pub(super) fn restart(&mut self, standing: Standing) {
        for lane in self.lanes.values_mut() {
            lane.window.forget(&mut self.budget);
        }
        let before = std::mem::take(&mut self.lanes);
        self.tenants.clear();
        self.ring.clear();
        self.allowances = standing.allowances;
        self.next_delayed = standing.next_delayed;
        let held: Vec<_> = self
            .leases
            .all()
            .map(|(_, held)| (held.lane, held.tenant, held.ending))
            .collect();
        for (id, tenant, _) in &held {
            self.lane(*id, *tenant, Window::unknown);
        }
        for (id, tenant, ending) in held {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.held += 1;
            }
            if !ending {
                self.flies(id, tenant, 1);
            }
        }
        for (id, tenant, due) in standing.lanes {
            self.count(id, tenant, due, Window::unknown);
        }
        for (id, old) in before {
            if let Some(lane) = self.lanes.get_mut(&id) {
                if lane.open
                    && let Some(tenant) = self.tenants.get_mut(&lane.tenant)
                {
                    tenant.open.remove(&(lane.served, id));
                    tenant.open.insert((old.served, id));
                }
                lane.served = old.served;
            }
        }
    }
}

// What readers ask.
impl Schedule {
    /// Whether something can be leased.
    pub(super) fn has_work(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether a delivery that waited for its time has become due.
    pub(super) fn has_overdue(&self, now: i64) -> bool {
        self.next_delayed.is_some_and(|next| next <= now)
    }

    /// When the next delivery becomes due or the next lease ends.
    pub(super) fn next_change(&self) -> Option<i64> {
        let delayed = self.next_delayed.into_iter();
        delayed.chain(self.leases.next_end()).min()
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }
}

// Leasing.
impl Schedule {
    /// Leases, fair by tenant first and by lane second.
    pub(super) fn lease(
        &mut self,
        call: Call,
        now: i64,
        source: &mut Source<'_>,
    ) -> Result<Vec<Picked>, Fault> {
        self.set_bound(call.max_per_endpoint);
        while let Some(seq) = self.leases.expired(now) {
            self.put_back(seq);
        }
        let mut picked = Vec::new();
        let tenants = self.round(call.max);
        let shared = share(call.max, tenants, |tenant, quota| {
            let got = self.serve_tenant(call, tenant.id, quota, source, &mut picked)?;
            if got > 0 {
                // The next round goes on with it if it got only a part of its turn, and behind it
                // otherwise.
                let left = tenant.left.saturating_sub(got);
                let cut = got == quota && left > 0;
                self.last_tenant = tenant.id - i64::from(cut);
                self.begun = if cut { (tenant.id, left) } else { (0, 0) };
            }
            Ok(got)
        });
        if let Err(fault) = shared {
            self.put_all_back(&picked);
            return Err(fault);
        }
        // The first of each tenant first, so that the worker too takes turns.
        picked.sort_by_key(|picked| picked.rank);
        Ok(picked)
    }

    /// Gives a lease up, if it is in force.
    pub(super) fn release(&mut self, seq: i64, lease: i64) -> bool {
        let held = self.leases.get(seq);
        let theirs = held.is_some_and(|held| held.lease == lease && !held.ending);
        if theirs {
            self.put_back(seq);
        }
        theirs
    }

    /// Takes back what was just leased.
    pub(super) fn put_all_back(&mut self, picked: &[Picked]) {
        for one in picked {
            self.release(one.seq, one.lease);
        }
    }

    /// Ends a lease whose delivery is not due any more.
    pub(super) fn drop_lease(&mut self, seq: i64, lease: i64) {
        if self.begin_end(seq, lease).is_some() {
            self.end(seq);
        }
    }

    /// The tenants that can be served, in a round that goes on where the last one ended.
    fn round(&self, limit: usize) -> Vec<Turn> {
        let later = self
            .ring
            .range((Bound::Excluded(self.last_tenant), Bound::Unbounded));
        let earlier = self.ring.range(..=self.last_tenant);
        let turn = |tenant: &i64| {
            let weight = self.allowance(*tenant).weight;
            Turn {
                id: *tenant,
                weight,
                left: match self.begun {
                    (begun, left) if begun == *tenant => left.min(weight),
                    _ => weight,
                },
            }
        };
        later.chain(earlier).take(limit).map(turn).collect()
    }

    /// Leases up to `quota` of the tenant's due deliveries, evenly over its open lanes.
    fn serve_tenant(
        &mut self,
        call: Call,
        id: i64,
        quota: usize,
        source: &mut Source<'_>,
        picked: &mut Vec<Picked>,
    ) -> Result<usize, Fault> {
        let Some(tenant) = self.tenants.get(&id) else {
            return Ok(0);
        };
        let room = self.allowance(id).most;
        let room = room.map_or(usize::MAX, |most| most.saturating_sub(tenant.flying));
        let quota = quota.min(room);
        let lanes: Vec<Turn> = tenant
            .open
            .iter()
            .take(quota)
            .map(|(_, lane)| Turn::of_lane(*lane))
            .collect();
        let mut rank = 0;
        share(quota, lanes, |lane, quota| {
            let got = self.serve_lane(call, lane.id, quota, source, &mut rank, picked)?;
            if got > 0 {
                self.served(lane.id);
            }
            Ok(got)
        })
    }

    fn serve_lane(
        &mut self,
        call: Call,
        id: i64,
        quota: usize,
        source: &mut Source<'_>,
        rank: &mut usize,
        picked: &mut Vec<Picked>,
    ) -> Result<usize, Fault> {
        let mut got = 0;
        while got < quota {
            let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.open) else {
                break;
            };
            let tenant = lane.tenant;
            let Some((place, fresh)) = lane.window.take(&mut self.budget) else {
                self.read_on(id, quota - got, source)?;
                continue;
            };
            let (_, seq) = place;
            let lease = self.leases.next_number();
            self.leases.give(
                seq,
                Held {
                    lease,
                    lane: id,
                    tenant,
                    until: call.until,
                    place,
                    ending: false,
                },
            );
            lane.held += 1;
            self.flies(id, tenant, 1);
            picked.push(Picked {
                rank: *rank,
                seq,
                lease,
                fresh,
            });
            *rank += 1;
            got += 1;
        }
        Ok(got)
    }

    /// Reads on in a lane behind what is known of it.
    fn read_on(&mut self, id: i64, wanted: usize, source: &mut Source<'_>) -> Result<(), Fault> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Ok(());
        };
        let Some(mut after) = lane.window.ends_at() else {
            // The file has less than it counts, which a check mends.
            lane.due = lane.held;
            self.settle(id);
            return Ok(());
        };
        let limit = if self.budget.is_spent() {
            wanted.min(READ)
        } else {
            READ
        };
        loop {
            let read = source(id, after, limit)?;
            let last = read.last().copied().filter(|_| read.len() >= limit);
            let free: Vec<Place> = read
                .into_iter()
                .filter(|(_, seq)| self.leases.get(*seq).is_none())
                .collect();
            let found = !free.is_empty();
            lane.window.extend(free.into_iter(), last, &mut self.budget);
            match last {
                Some(last) if !found => after = last,
                _ => return Ok(()),
            }
        }
    }
}

// Keeping it in order.
impl Schedule {
    fn allowance(&self, tenant: i64) -> Allowance {
        self.allowances.get(&tenant).copied().unwrap_or_default()
    }

    /// Ends a lease for good.
    fn end(&mut self, seq: i64) {
        let Some(held) = self.leases.end(seq) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&held.lane) {
            lane.held = lane.held.saturating_sub(1);
        }
        if !held.ending {
            self.flies(held.lane, held.tenant, -1);
        }
        self.settle(held.lane);
    }

    /// Ends a lease, and has its delivery due.
    fn put_back(&mut self, seq: i64) {
        let Some(held) = self.leases.get(seq) else {
            return;
        };
        let (lane, place) = (held.lane, held.place);
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.window.enter(place, None, &mut self.budget);
        }
        self.end(seq);
    }

    /// Sets how many deliveries of a lane are due.
    fn count(&mut self, id: i64, tenant: i64, due: usize, window: fn() -> Window) {
        if due == 0 && !self.lanes.contains_key(&id) {
            return;
        }
        self.lane(id, tenant, window).due = due;
        self.settle(id);
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

    /// So many more of the lane are on their way.
    fn flies(&mut self, id: i64, tenant: i64, more: isize) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.flying = lane.flying.saturating_add_signed(more);
        }
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.flying = tenant.flying.saturating_add_signed(more);
        }
        self.settle(id);
    }

    /// The lane had its turn.
    fn served(&mut self, id: i64) {
        self.turns += 1;
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.open
            && let Some(tenant) = self.tenants.get_mut(&lane.tenant)
        {
            tenant.open.remove(&(lane.served, id));
            tenant.open.insert((self.turns, id));
        }
        lane.served = self.turns;
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

    /// Which lanes are open depends on the bound, so they are looked at again when it changes.
    fn set_bound(&mut self, bound: usize) {
        if self.max_per_endpoint != bound {
            self.max_per_endpoint = bound;
            let lanes: Vec<i64> = self.lanes.keys().copied().collect();
            for lane in lanes {
                self.settle(lane);
            }
        }
    }
}

/// A tenant or a lane whose turn it is.
struct Turn {
    id: i64,
    weight: usize,
    /// Its weight, or what is left of a turn that it got a part of.
    left: usize,
}

impl Turn {
    fn of_lane(id: i64) -> Self {
        Self {
            id,
            weight: 1,
            left: 1,
        }
    }
}

impl Sharer for Turn {
    fn weight(&self) -> usize {
        self.weight
    }

    fn turn(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call {
        max: 10,
        max_per_endpoint: 100,
        until: 50,
    };

    /// Lane 7 of tenant 1 with so many due in the file, of which nothing is known.
    fn schedule(due: usize) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.restart(Standing {
            lanes: vec![(7, 1, due)],
            ..Standing::default()
        });
        schedule
    }

    /// Leases from a file with these places.
    fn lease(schedule: &mut Schedule, call: Call, now: i64, file: &[Place]) -> Vec<i64> {
        let mut source = |_, after, limit| {
            let behind = file.iter().copied().filter(|place| *place > after);
            Ok(behind.take(limit).collect())
        };
        let picked = schedule.lease(call, now, &mut source).unwrap();
        picked.into_iter().map(|picked| picked.seq).collect()
    }

    fn due(lane: i64, seqs: std::ops::Range<i64>, counted: usize) -> Changes {
        Changes {
            lanes: vec![(lane, 1, counted)],
            due: seqs.map(|seq| (lane, (0, seq), None)).collect(),
            ..Changes::default()
        }
    }

    #[test]
    fn a_lane_is_read_on_behind_what_is_known() {
        let file: Vec<Place> = (0..600).map(|seq| (0, seq)).collect();
        let mut schedule = schedule(600);
        let mut got = Vec::new();
        while schedule.has_work() {
            let call = Call {
                max_per_endpoint: 1000,
                ..CALL
            };
            got.extend(lease(&mut schedule, call, 0, &file));
        }
        assert_eq!(got, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_held_is_not_read_again() {
        let file: Vec<Place> = (0..20).map(|seq| (0, seq)).collect();
        let mut schedule = schedule(20);
        assert_eq!(lease(&mut schedule, CALL, 0, &file).len(), 10);
        schedule.restart(Standing {
            lanes: vec![(7, 1, 20)],
            ..Standing::default()
        });
        let rest = lease(&mut schedule, CALL, 0, &file);
        assert_eq!(rest, (10..20).collect::<Vec<_>>());
        assert!(!schedule.has_work());
    }

    #[test]
    fn what_was_read_before_it_was_told_is_leased_once() {
        let mut schedule = schedule(1);
        // The file has the second already, which the writer tells only afterwards.
        assert_eq!(lease(&mut schedule, CALL, 0, &[(0, 1), (0, 2)]), [1]);
        schedule.apply(due(7, 2..3, 2));
        assert_eq!(lease(&mut schedule, CALL, 0, &[]), [2]);
        schedule.apply(due(7, 2..3, 2));
        assert!(lease(&mut schedule, CALL, 0, &[]).is_empty());
    }

    #[test]
    fn leases_that_ended_are_due_again_in_their_old_place() {
        let mut schedule = Schedule::default();
        schedule.apply(due(7, 1..4, 3));
        assert_eq!(
            lease(&mut schedule, Call { max: 2, ..CALL }, 0, &[]),
            [1, 2]
        );
        assert_eq!(schedule.next_change(), Some(50));
        assert_eq!(lease(&mut schedule, CALL, 50, &[]), [1, 2, 3]);
    }

    #[test]
    fn a_place_is_free_while_its_outcome_is_written() {
        let mut schedule = Schedule::default();
        schedule.apply(due(7, 1..4, 3));
        let one = Call {
            max_per_endpoint: 1,
            ..CALL
        };
        assert_eq!(lease(&mut schedule, one, 0, &[]), [1]);
        assert!(!schedule.has_work());
        let lease_number = schedule.leases().get(1).unwrap().lease;
        assert_eq!(schedule.begin_end(1, lease_number), Some(7));
        assert_eq!(lease(&mut schedule, one, 0, &[]), [2]);
        // It was not written, so both are on their way, and nothing more is given.
        schedule.keep(1);
        assert!(!schedule.has_work());
        assert_eq!(schedule.begin_end(1, lease_number), Some(7));
        schedule.apply(Changes {
            ended: vec![1],
            lanes: vec![(7, 1, 2)],
            ..Changes::default()
        });
        assert_eq!(schedule.leases().count(), 1);
        assert!(!schedule.has_work());
    }

    #[test]
    fn a_lane_that_counts_too_much_is_left_alone() {
        let mut schedule = schedule(5);
        assert_eq!(lease(&mut schedule, CALL, 0, &[(0, 1)]), [1]);
        assert!(!schedule.has_work());
    }
}
