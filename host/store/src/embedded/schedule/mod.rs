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
//! - [`leasing`]: gives them out.

mod lane;
mod leasing;
mod roster;
mod share;
mod tenants;
mod turns;
mod window;

pub(super) use self::leasing::{Call, Picked};
pub(super) use self::tenants::Allowance;
pub(super) use self::window::{Fresh, Place};

use std::collections::HashMap;

use self::roster::Roster;
use self::turns::Round;
use self::window::Window;
use super::changes::Changes;
use super::leases::Leases;
use super::thread::Fault;

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
        for (lane, tenant, due) in changes.lanes {
            self.roster.count(lane, tenant, due, Window::of_empty_lane);
        }
        for (lane, place, fresh) in changes.due {
            // One that was read from the file before this was told may be held already.
            if self.leases.get(place.1).is_none() {
                self.roster.enter(lane, place, fresh);
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
