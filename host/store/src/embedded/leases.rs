//! Who holds which delivery. Leases are in memory alone: there is one host, and they end with it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use super::schedule::Place;
use crate::queue::LeaseToken;

/// A delivery that somebody holds.
#[derive(Debug)]
pub(super) struct Held {
    /// The number of the lease.
    pub(super) lease: i64,
    pub(super) lane: i64,
    pub(super) tenant: i64,
    /// When it ends.
    pub(super) until: i64,
    /// Where the delivery goes back to.
    pub(super) place: Place,
    /// Its outcome is being written, so it can neither end nor be ended again.
    pub(super) ending: bool,
}

/// All leases, by the number of the delivery.
#[derive(Debug)]
pub(super) struct Leases {
    held: HashMap<i64, Held>,
    /// When they end, but for those that are ending already.
    ends: BTreeSet<(i64, i64)>,
    last: i64,
}

impl Default for Leases {
    fn default() -> Self {
        // Numbers begin anywhere, so that a token from before a restart fits no lease after.
        let start = RandomState::new().build_hasher().finish() >> 2;
        Self {
            held: HashMap::new(),
            ends: BTreeSet::new(),
            last: i64::try_from(start).unwrap_or(0),
        }
    }
}

impl Leases {
    /// A number that no lease has had.
    pub(super) fn next_number(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    pub(super) fn give(&mut self, seq: i64, held: Held) {
        self.ends.insert((held.until, seq));
        self.held.insert(seq, held);
    }

    pub(super) fn get(&self, seq: i64) -> Option<&Held> {
        self.held.get(&seq)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (i64, &Held)> {
        self.held.iter().map(|(seq, held)| (*seq, held))
    }

    pub(super) fn count(&self) -> usize {
        self.held.len()
    }

    /// Marks a lease as ending, if it is in force and this is its number.
    pub(super) fn begin_end(&mut self, seq: i64, lease: i64) -> Option<&Held> {
        let held = self.held.get_mut(&seq)?;
        if held.lease != lease || held.ending {
            return None;
        }
        held.ending = true;
        self.ends.remove(&(held.until, seq));
        Some(held)
    }

    /// The outcome could not be written: the lease is in force as before.
    pub(super) fn keep(&mut self, seq: i64) -> Option<&Held> {
        let held = self.held.get_mut(&seq)?;
        held.ending = false;
        self.ends.insert((held.until, seq));
        Some(held)
    }

    /// Ends a lease, whatever its number.
    pub(super) fn end(&mut self, seq: i64) -> Option<Held> {
        let held = self.held.remove(&seq)?;
        self.ends.remove(&(held.until, seq));
        Some(held)
    }

    /// The delivery whose lease ended first, if one has by `now`.
    pub(super) fn expired(&self, now: i64) -> Option<i64> {
        let (until, seq) = self.ends.first()?;
        (*until <= now).then_some(*seq)
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<i64> {
        self.ends.first().map(|(until, _)| *until)
    }
}

/// Who held what at one moment, for those who read records.
#[derive(Debug, Default)]
pub(super) struct Holdings(HashMap<i64, i64>);

impl Holdings {
    pub(super) fn of(leases: &Leases) -> Self {
        let held = leases.held.iter();
        Self(held.map(|(seq, held)| (*seq, held.until)).collect())
    }

    /// When the lease of a delivery ends, if somebody holds it.
    pub(super) fn until(&self, seq: i64) -> Option<i64> {
        self.0.get(&seq).copied()
    }

    /// The deliveries that somebody holds, the newest first.
    pub(super) fn newest_first(&self) -> Vec<i64> {
        let mut held: Vec<i64> = self.0.keys().copied().collect();
        held.sort_unstable_by_key(|seq| Reverse(*seq));
        held
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// The number of the delivery and of the lease, as one word.
pub(super) fn token(seq: i64, lease: i64) -> LeaseToken {
    LeaseToken(format!("{seq}-{lease}").into())
}

/// What [`token`] was made of; `None` for what is no token of this store.
pub(super) fn parse_token(token: &LeaseToken) -> Option<(i64, i64)> {
    let (seq, lease) = token.0.split_once('-')?;
    Some((seq.parse().ok()?, lease.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lease: i64, until: i64) -> Held {
        Held {
            lease,
            lane: 1,
            tenant: 1,
            until,
            place: (0, 0),
            ending: false,
        }
    }

    #[test]
    fn tokens_of_other_stores_are_none_of_ours() {
        assert_eq!(parse_token(&token(7, 9)), Some((7, 9)));
        assert_eq!(parse_token(&LeaseToken("nonsense".into())), None);
    }

    #[test]
    fn a_lease_ends_once_and_for_its_holder_only() {
        let mut leases = Leases::default();
        leases.give(7, held(1, 100));
        assert!(leases.begin_end(7, 2).is_none());
        assert!(leases.begin_end(7, 1).is_some());
        assert!(leases.begin_end(7, 1).is_none());
        // What is being written cannot be given to another.
        assert_eq!(leases.expired(100), None);
        leases.keep(7);
        assert_eq!(leases.expired(99), None);
        assert_eq!(leases.expired(100), Some(7));
        assert!(leases.begin_end(7, 1).is_some());
        leases.end(7);
        assert!(leases.begin_end(7, 1).is_none());
        assert_eq!(leases.count(), 0);
    }
}
