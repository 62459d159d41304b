//! What of a host's places each shard is asked for.
//!
//! A shard knows its own tenants only, so between shards it is for the host to see that a tenant's part of the places
//! is its weight's, whichever shard it is in and however many others are there. Shards that have enough are served by
//! start-time fair queueing: each has come as far as what it was given, divided by what the tenants that wait there
//! have of weight together, and who has come least far is next. Every host does this for itself, so it holds for all
//! of them together.
//!
//! That alone would give slow receivers most of a host, for they hold their places longest. So a shard whose tenants
//! hold more than their part of the places is asked after those whose tenants do not, as within a shard a tenant is
//! served after those (`serve_turn` in `lua/turns.lua`).

use std::sync::{Mutex, PoisonError};

use super::CHUNK;

/// So much at least is asked of a shard while all places that are free allow it: a call for 32 costs a server half
/// as much for a delivery as calls for three do.
const MUCH: usize = 32;
/// With fewer deliveries in flight there is no need to look whose they are.
const SHORT: usize = 128;

/// How far a shard has come.
#[derive(Clone)]
struct Standing {
    /// What it was given, divided by weight.
    passed: f64,
    /// What its tenants had of weight together when it was asked last.
    weight: f64,
    /// Deliveries of it that this host has in flight.
    in_flight: usize,
    /// It had less than it was asked for. What it could not use meanwhile is not kept for it.
    sated: bool,
}

/// How far all of them have come.
pub(super) struct Shares(Mutex<Standings>);

struct Standings {
    shards: Vec<Standing>,
    /// How far those have come that are furthest behind.
    now: f64,
}

impl Shares {
    pub(super) fn new(shards: usize) -> Self {
        let new = Standing {
            passed: 0.0,
            weight: 1.0,
            in_flight: 0,
            sated: true,
        };
        Self(Mutex::new(Standings {
            shards: vec![new; shards],
            now: 0.0,
        }))
    }

    fn standings<T>(&self, look: impl FnOnce(&mut Standings) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Parts `left` places among shards that may have work: whom to ask for how many. At first few that may have
    /// much are asked, as their weights want it; should they not have it, the others, and those again that had
    /// more, are asked for an even share each.
    pub(super) fn part(&self, shards: &[usize], left: usize, first: bool) -> Vec<(usize, usize)> {
        self.standings(|all| {
            all.go_on(shards);
            let shards = all.below_their_part(shards, left);
            let mut line: Vec<(f64, usize, usize)> = shards
                .iter()
                .map(|shard| (all.shards[*shard].passed, *shard, 0))
                .collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            if first {
                by_weight(&mut line, left, |shard| all.shards[shard].weight);
            } else {
                let asked = line.len().min(left);
                line.truncate(asked);
                for (n, (_, _, quota)) in line.iter_mut().enumerate() {
                    *quota = (left / asked + usize::from(n < left % asked)).min(CHUNK);
                }
            }
            line.into_iter()
                .filter(|(_, _, quota)| *quota > 0)
                .map(|(_, shard, quota)| (shard, quota))
                .collect()
        })
    }

    /// A shard that was asked for `quota` gave `taken`, to tenants that had so much weight together.
    #[allow(clippy::cast_precision_loss, reason = "rough is good enough")]
    pub(super) fn took(&self, shard: usize, quota: usize, taken: usize, weight: u64) {
        self.standings(|all| {
            let standing = &mut all.shards[shard];
            standing.weight = weight.max(1) as f64;
            standing.passed += taken as f64 / standing.weight;
            standing.sated = taken < quota;
        });
    }

    /// Deliveries of these shards, a number for each, are in flight now.
    pub(super) fn begin(&self, shards: impl Iterator<Item = usize>) {
        self.standings(|all| shards.for_each(|shard| all.shards[shard].in_flight += 1));
    }

    /// They are not any more.
    pub(super) fn end(&self, shards: impl Iterator<Item = usize>) {
        self.standings(|all| {
            for shard in shards {
                let in_flight = &mut all.shards[shard].in_flight;
                *in_flight = in_flight.saturating_sub(1);
            }
        });
    }

    /// A shard did not answer.
    pub(super) fn failed(&self, shard: usize) {
        self.standings(|all| all.shards[shard].sated = true);
    }
}

impl Standings {
    /// Those of these shards that hold no more than their part of what is in flight for them and of `left` places, or
    /// all if there are none. What the others are passed over for is not kept for them.
    #[allow(clippy::cast_precision_loss, reason = "rough is good enough")]
    fn below_their_part(&mut self, shards: &[usize], left: usize) -> Vec<usize> {
        let of = |shard: &usize| &self.shards[*shard];
        let in_flight: usize = shards.iter().map(|shard| of(shard).in_flight).sum();
        if in_flight < SHORT {
            return shards.to_vec();
        }
        let weight: f64 = shards.iter().map(|shard| of(shard).weight).sum();
        let part = (in_flight + left) as f64 / weight;
        let holds_more = |shard: &usize| of(shard).in_flight as f64 > part * of(shard).weight;
        let (more, below): (Vec<usize>, Vec<usize>) = shards.iter().copied().partition(holds_more);
        if below.is_empty() {
            return more;
        }
        for shard in more {
            self.shards[shard].sated = true;
        }
        below
    }

    /// Has those of these shards that come back begin where those are that never had enough.
    fn go_on(&mut self, shards: &[usize]) {
        let waiting = shards.iter().map(|shard| &self.shards[*shard]);
        let passed = waiting
            .filter(|standing| !standing.sated)
            .map(|standing| standing.passed);
        if let Some(least) = passed.min_by(f64::total_cmp) {
            self.now = least;
        }
        for shard in shards {
            let standing = &mut self.shards[*shard];
            if standing.sated {
                standing.passed = self.now;
                standing.sated = false;
            }
        }
    }
}

/// Gives the places away in pieces of [`MUCH`] or a little less, each to the shard that has come least far by then.
/// `line` is in that order: how far it has come, which it is, what it gets.
#[allow(clippy::cast_precision_loss, reason = "rough is good enough")]
fn by_weight(line: &mut [(f64, usize, usize)], left: usize, weight: impl Fn(usize) -> f64) {
    let pieces = left.div_ceil(MUCH);
    for n in 0..pieces {
        let piece = left / pieces + usize::from(n < left % pieces);
        let open = line.iter_mut().filter(|shard| shard.2 + piece <= CHUNK);
        // The first of those that are level.
        let Some(next) = open.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            return;
        };
        next.0 += piece as f64 / weight(next.1);
        next.2 += piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each shard was given in so many rounds of `left` places, all of which it used.
    fn given(shares: &Shares, weights: &[u64], left: usize, rounds: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..weights.len()).collect();
        let mut given = vec![0; weights.len()];
        for _ in 0..rounds {
            for (shard, quota) in shares.part(&all, left, true) {
                shares.took(shard, quota, quota, weights[shard]);
                given[shard] += quota;
            }
        }
        given
    }

    #[test]
    fn many_shards_are_asked_few_at_a_time_and_all_in_turn() {
        let shares = Shares::new(12);
        let all: Vec<usize> = (0..12).collect();
        let mut asked = Vec::new();
        for _ in 0..3 {
            let parts = shares.part(&all, 128, true);
            assert_eq!(parts.len(), 4);
            for (shard, quota) in parts {
                assert_eq!(quota, 32);
                shares.took(shard, quota, quota, 1);
                asked.push(shard);
            }
        }
        asked.sort_unstable();
        assert_eq!(asked, all);
    }

    #[test]
    fn shards_get_what_their_tenants_weigh() {
        for left in [1, 20, 128, 600] {
            let shares = Shares::new(4);
            // What they weigh is known once they were asked.
            given(&shares, &[1, 3, 20, 0], left, 12);
            let given = given(&shares, &[1, 3, 20, 0], left, 100);
            let all: usize = given.iter().sum();
            assert_eq!(all, 100 * left);
            for (given, weight) in given.into_iter().zip([1, 3, 20, 1]) {
                let fair = all * weight / 25;
                assert!(given.abs_diff(fair) <= left.max(64), "{given}, not {fair}");
            }
        }
    }

    /// Has shards ask for and get all places for a while, and says how far apart all are in what they get then.
    fn apart_after(shares: &Shares, alone: &[usize], gives: impl Fn(usize) -> usize) -> usize {
        for (shard, quota) in (0..100).flat_map(|_| shares.part(alone, 64, true)) {
            shares.took(shard, quota, gives(quota), 1);
        }
        let got = given(shares, &[1, 1], 64, 10);
        got[0].abs_diff(got[1])
    }

    #[test]
    fn who_had_enough_for_a_while_is_not_owed_what_it_did_not_use() {
        let shares = Shares::new(2);
        given(&shares, &[1, 1], 64, 10);
        shares.took(1, 32, 3, 1);
        assert!(apart_after(&shares, &[0], |quota| quota) <= 64);
    }

    #[test]
    fn who_used_what_others_did_not_need_owes_nothing() {
        // As much as it wanted, and all that there was.
        for missing in [1, 0] {
            let shares = Shares::new(2);
            assert!(apart_after(&shares, &[0], |quota| quota - missing) <= 64);
        }
        let shares = Shares::new(2);
        for (shard, quota) in (0..100).flat_map(|_| shares.part(&[0], 64, true)) {
            shares.took(shard, quota, quota, 1);
        }
        shares.took(0, 32, 3, 1);
        assert!(apart_after(&shares, &[0, 1], |quota| quota - 1) <= 64);
    }

    #[test]
    fn who_holds_more_than_its_part_of_the_places_waits_for_the_others() {
        for weights in [[1, 1], [3, 1]] {
            let shares = Shares::new(2);
            // The first holds all places when the other comes.
            for (shard, quota) in (0..20).flat_map(|_| shares.part(&[0], 20, true)) {
                shares.took(shard, quota, quota, weights[0]);
                shares.begin(std::iter::repeat_n(shard, quota));
            }
            shares.took(1, 0, 0, weights[1]);
            let parts = shares.part(&[0, 1], 20, true);
            assert_eq!(parts, [(1, 20)]);
            shares.begin(std::iter::repeat_n(1, 800));
            shares.took(1, 800, 800, weights[1]);
            assert_eq!(shares.part(&[0, 1], 20, true), [(0, 20)]);
        }
    }

    #[test]
    fn who_holds_its_part_gets_its_turn() {
        let shares = Shares::new(2);
        for _ in 0..20 {
            for (shard, quota) in shares.part(&[0, 1], 20, true) {
                shares.took(shard, quota, quota, 1);
                shares.begin(std::iter::repeat_n(shard, quota));
            }
        }
        let asked =
            |parts: Vec<(usize, usize)>| parts.iter().map(|(shard, _)| *shard).sum::<usize>();
        // Both hold as much as the other, and take turns.
        let first = asked(shares.part(&[0, 1], 20, true));
        shares.took(first, 20, 20, 1);
        assert_ne!(asked(shares.part(&[0, 1], 20, true)), first);
    }

    #[test]
    fn what_is_left_after_the_first_calls_is_parted_among_all() {
        let shares = Shares::new(3);
        assert_eq!(shares.part(&[0, 1, 2], 7, true), [(0, 7)]);
        assert_eq!(shares.part(&[0, 1, 2], 7, false), [(0, 3), (1, 2), (2, 2)]);
        assert_eq!(shares.part(&[1, 2], 1, false), [(1, 1)]);
    }
}
