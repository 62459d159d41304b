//! What can be leased, and who holds what, in the memory of the host.
//!
//! It follows the file: the writer tells it of its changes once they are committed ([`Changes`]), and has
//! it made anew when another process wrote. So a lease writes nothing, and waits for no disk.
//!
//! Tenants take turns, and so do a tenant's lanes. Only lanes that can give something are looked at: the
//! cost of a lease grows neither with the backlog nor with tenants that have nothing due.
//!
//! - [`roster`]: which lanes ([`lane`]) can give something, by their counts;
//! - [`tenants`]: which tenants can be served, and how much each may take;
//! - [`turns`] and [`share`]: whose turn it is, and how much of it each gets;
//! - [`window`]: the places at the front of each lane;
//! - [`newcomers`]: who is served out of turn;
//! - [`leasing`]: gives them out.

mod lane;
mod leasing;
mod newcomers;
mod roster;
mod share;
mod tenants;
mod turns;
mod window;

pub(super) use self::leasing::{Call, Picked};
pub(super) use self::tenants::Allowance;
pub(super) use self::window::{Fresh, Place};

use std::collections::{HashMap, HashSet};

use self::newcomers::Newcomers;
use self::roster::Roster;
use self::turns::Round;
use self::window::Window;
use super::changes::Changes;
use super::leases::Leases;
use super::thread::Fault;
use crate::stalling::Reaction;

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
#[derive(Debug, Default)]
pub(super) struct Schedule {
    roster: Roster,
    round: Round,
    newcomers: Newcomers,
    leases: Leases,
    next_delayed: Option<i64>,
}

// What the writer tells.
impl Schedule {
    /// Begins the end of a lease, if it is in force: its place is free, and its delivery is nobody
    /// else's until [`Self::keep`] or a commit. Its lane.
    pub(super) fn begin_end(&mut self, seq: i64, lease: i64) -> Option<i64> {
        let held = self.leases.begin_end(seq, lease)?;
        self.roster.flies(held.lane, held.tenant, -1);
        Some(held.lane)
    }

    /// Notes what an attempt says of the endpoint of a lane. That is known whatever becomes of its outcome.
    pub(super) fn note(&mut self, lane: i64, reaction: Reaction) {
        self.roster.note(lane, reaction);
    }

    /// The outcome of a lease was not written.
    pub(super) fn keep(&mut self, seq: i64) {
        if let Some(held) = self.leases.keep(seq) {
            self.roster.flies(held.lane, held.tenant, 1);
        }
    }

    /// Takes over what was committed. Whether there is something new to do.
    pub(super) fn apply(&mut self, changes: Changes) -> bool {
        let news = !changes.due.is_empty() || changes.delayed.is_some() || changes.next_delayed;
        for (tenant, allowance) in changes.allowances {
            self.roster.allow(tenant, allowance);
        }
        for seq in changes.ended {
            self.end(seq);
        }
        let enqueued: HashSet<i64> = changes
            .due
            .iter()
            .filter(|(.., fresh)| fresh.is_some())
            .map(|(lane, ..)| *lane)
            .collect();
        let mut newcomers = Vec::new();
        for (lane, tenant, due) in changes.lanes {
            if enqueued.contains(&lane) && !self.roster.tenants().has_open(tenant) {
                newcomers.push(tenant);
            }
            self.roster.count(lane, tenant, due, Window::of_empty_lane);
        }
        for (lane, place, fresh) in changes.due {
            // One that was read from the file before this was told may be held already.
            if self.leases.get(place.1).is_none() {
                self.roster.enter(lane, place, fresh);
            }
        }
        let tenants = self.roster.tenants();
        let can_be_served = newcomers.into_iter().filter(|id| tenants.has_open(*id));
        self.newcomers.add(can_be_served);
        if changes.next_delayed {
            self.next_delayed = None;
        }
        self.next_delayed = self.next_delayed.into_iter().chain(changes.delayed).min();
        news
    }

    /// Begins anew with what the file says; leases go on.
    pub(super) fn restart(&mut self, standing: Standing) {
        self.next_delayed = standing.next_delayed;
        let held = self.leases.all();
        let held = held.map(|(_, held)| (held.lane, held.tenant, held.ending));
        self.roster
            .restart(standing.allowances, held, standing.lanes);
    }

    /// Ends a lease for good.
    fn end(&mut self, seq: i64) {
        if let Some(held) = self.leases.end(seq) {
            self.roster.free(held.lane, held.tenant, held.ending);
        }
    }
}

// What readers ask.
impl Schedule {
    /// Whether something can be leased.
    pub(super) fn has_work(&self) -> bool {
        self.roster.tenants().is_open()
    }

    /// Whether something can be leased for somebody who had nothing before.
    pub(super) fn has_new_work(&self) -> bool {
        !self.newcomers.is_empty()
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

    /// Whether the endpoint of a lane stalls so much that it is held back.
    pub(super) fn stalls(&self, lane: i64) -> bool {
        self.roster.stalls(lane)
    }

    /// How many endpoints stall.
    pub(super) fn stalling(&self) -> usize {
        self.roster.stalling()
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call {
        max: 10,
        max_per_endpoint: 100,
        new_up_to: None,
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

    /// So many due deliveries of lane 8 of tenant 2, as they are told when they have just been enqueued.
    fn enqueued(seqs: std::ops::Range<i64>, counted: usize) -> Changes {
        let fresh = |seq| {
            let draft = wasmhook_core::EventDraft {
                id: format!("evt_{seq}"),
                tenant: "light".into(),
                event_type: "a.b".into(),
                payload: "{}".into(),
                ..Default::default()
            };
            let event = draft.accept(jiff::Timestamp::now(), 100).unwrap();
            let endpoint = wasmhook_core::EndpointId::new("main").unwrap();
            let id = wasmhook_core::delivery::default_id(&event.tenant_id, &event.id, &endpoint);
            let at = event.occurred_at;
            let delivery = wasmhook_core::Delivery::pending(id, &event, endpoint, None, at);
            Some(Box::new(Fresh { delivery, event }))
        };
        Changes {
            lanes: vec![(8, 2, counted)],
            due: seqs.map(|seq| (8, (0, seq), fresh(seq))).collect(),
            ..Changes::default()
        }
    }

    /// New work, for no endpoint more than come to this many on their way.
    fn new(light: usize) -> Call {
        Call {
            new_up_to: Some(light),
            ..CALL
        }
    }

    #[test]
    fn who_had_nothing_is_new_until_it_had_a_turn() {
        let mut schedule = schedule(0);
        schedule.apply(due(7, 0..10, 10));
        assert!(!schedule.has_new_work());
        schedule.apply(enqueued(100..102, 2));
        assert_eq!(lease(&mut schedule, new(9), 0, &[]), [100, 101]);
        // In the round of all it is not new any more, though it has more.
        schedule.apply(enqueued(102..104, 4));
        assert_eq!(
            lease(&mut schedule, Call { max: 2, ..CALL }, 0, &[]).len(),
            2
        );
        assert!(!schedule.has_new_work() && schedule.has_work());
    }

    #[test]
    fn who_has_much_on_its_way_is_left_to_the_round_of_all() {
        let mut schedule = schedule(0);
        schedule.apply(enqueued(100..103, 3));
        assert_eq!(lease(&mut schedule, new(2), 0, &[]), [100, 101]);
        schedule.apply(enqueued(103..104, 4));
        assert!(lease(&mut schedule, new(2), 0, &[]).is_empty());
        assert_eq!(lease(&mut schedule, CALL, 0, &[]), [102, 103]);
    }

    #[test]
    fn what_was_due_before_or_comes_back_is_not_new() {
        let mut schedule = schedule(0);
        schedule.apply(due(7, 1..2, 1));
        schedule.apply(enqueued(100..101, 1));
        assert_eq!(lease(&mut schedule, CALL, 0, &[]), [1, 100]);
        // Both leases end.
        assert_eq!(lease(&mut schedule, new(9), 50, &[]).len(), 0);
        assert!(schedule.has_work());
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
