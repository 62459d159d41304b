//! Whose turn it is: the tenants go round, and a round goes on where the one before ended.

use super::share::Sharer;
use super::tenants::Tenants;

/// A tenant or a lane whose turn it is.
pub(super) struct Turn {
    pub(super) id: i64,
    weight: usize,
    /// Its weight, or what is left of a turn that it got a part of.
    left: usize,
}

impl Turn {
    /// A turn of its own for a tenant, whoever's it is in the round.
    pub(super) fn out_of_round(tenant: i64, tenants: &Tenants) -> Self {
        let weight = tenants.allowance(tenant).weight;
        Self {
            id: tenant,
            weight,
            left: weight,
        }
    }

    pub(super) fn of_lane(id: i64) -> Self {
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

/// So many times in a row at most who lacks places keeps its turn: others may hold them with nothing due.
const MOST_KEPT: usize = 32;

/// With fewer on their way there is no need to look who holds more places than others.
const SHORT: usize = 128;

/// What a tenant's part of the places is, for each of its weight. A place is held for as long as a receiver takes, so
/// turns alone would give nearly all of them to the slowest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part(f64);

impl Part {
    /// Of so many that are on their way and as many more as are asked for; `None` where there is nothing to part.
    pub(super) fn of(tenants: &Tenants, flying: usize, asked: usize) -> Option<Self> {
        let open = tenants.count_open();
        (open > 1 && flying >= SHORT).then(|| Self(float(flying + asked) / float(open)))
    }

    /// Whether a tenant holds more than that.
    fn holds_more(self, tenants: &Tenants, tenant: i64) -> bool {
        float(tenants.flying(tenant)) > self.of_tenant(tenants, tenant)
    }

    /// Whether it holds less than three quarters of it. With all of it, others hold a little more by the time.
    pub(super) fn lacks(self, tenants: &Tenants, tenant: i64) -> bool {
        float(tenants.flying(tenant)) < 0.75 * self.of_tenant(tenants, tenant)
    }

    fn of_tenant(self, tenants: &Tenants, tenant: i64) -> f64 {
        self.0 * float(tenants.allowance(tenant).weight)
    }
}

#[allow(clippy::cast_precision_loss, reason = "rough is good enough")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Where the round of the tenants goes on.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Behind this tenant.
    last_tenant: i64,
    /// The tenant that got only a part of its turn in the last round, and what is left of it.
    begun: (i64, usize),
    /// How many times in a row a tenant kept its turn because it lacks places.
    kept: usize,
}

impl Round {
    /// The tenants that can be served, at most so many: those who hold no more than their part of the places, and
    /// those who do, who are served with what the others leave.
    pub(super) fn turns(
        &self,
        tenants: &Tenants,
        limit: usize,
        part: Option<Part>,
    ) -> (Vec<Turn>, Vec<Turn>) {
        let turn = |tenant: i64| {
            let weight = tenants.allowance(tenant).weight;
            Turn {
                id: tenant,
                weight,
                left: match self.begun {
                    (begun, left) if begun == tenant => left.min(weight),
                    _ => weight,
                },
            }
        };
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for tenant in tenants.open(self.last_tenant) {
            if part.is_some_and(|part| part.holds_more(tenants, tenant)) {
                later.push(turn(tenant));
            } else {
                first.push(turn(tenant));
                if first.len() >= limit {
                    break;
                }
            }
        }
        later.truncate(limit);
        (first, later)
    }

    /// A tenant got so many of its quota. The next round goes on with it if that was only a part of its turn, or if
    /// it `lacks` places that others hold, and behind it otherwise.
    pub(super) fn served(&mut self, tenant: &Turn, quota: usize, got: usize, lacks: bool) {
        let left = tenant.left.saturating_sub(got);
        let cut = got == quota && left > 0;
        let keeps = got == quota && lacks && self.kept < MOST_KEPT;
        self.kept = if keeps { self.kept + 1 } else { 0 };
        let goes_on = cut || keeps;
        self.last_tenant = tenant.id - i64::from(goes_on);
        self.begun = if cut { (tenant.id, left) } else { (0, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tenants::Allowance;
    use super::*;

    /// Tenants 1 to 3 with something due, the second of which has two turns for one.
    fn tenants() -> Tenants {
        let mut tenants = Tenants::default();
        let heavy = Allowance {
            weight: 2,
            most: None,
        };
        tenants.allow(2, heavy);
        for tenant in 1..=3 {
            tenants.add_lane(tenant);
            tenants.open_lane(tenant, (0, tenant));
        }
        tenants
    }

    fn next(round: &Round, tenants: &Tenants) -> Vec<(i64, usize)> {
        let (turns, _) = round.turns(tenants, 2, None);
        turns.iter().map(|turn| (turn.id, turn.turn())).collect()
    }

    fn first(round: &Round, tenants: &Tenants, limit: usize) -> Vec<Turn> {
        round.turns(tenants, limit, None).0
    }

    #[test]
    fn who_holds_more_than_its_part_is_served_after_the_others() {
        let (mut tenants, round) = (tenants(), Round::default());
        assert!(Part::of(&tenants, 100, 28).is_none());
        // The parts of two hundred are 67 and, for the heavy one, twice as many.
        for (tenant, flying) in [(1, 68), (2, 68), (3, 60)] {
            tenants.flies(tenant, flying);
        }
        let part = Part::of(&tenants, 196, 4);
        let ids = |turns: Vec<Turn>| turns.iter().map(|turn| turn.id).collect::<Vec<_>>();
        let (first, later) = round.turns(&tenants, 10, part);
        assert_eq!((ids(first), ids(later)), (vec![2, 3], vec![1]));
        let part = part.unwrap();
        let lacks = [1, 2, 3].map(|tenant| part.lacks(&tenants, tenant));
        assert_eq!(lacks, [false, true, false]);
    }

    #[test]
    fn a_round_goes_on_with_who_lacks_places() {
        let (tenants, mut round) = (tenants(), Round::default());
        round.served(&first(&round, &tenants, 1)[0], 1, 1, true);
        assert_eq!(next(&round, &tenants), [(1, 1), (2, 2)]);
        // Not with who has no more to give, nor for ever.
        round.served(&first(&round, &tenants, 1)[0], 2, 1, true);
        assert_eq!(next(&round, &tenants), [(2, 2), (3, 1)]);
        let mut turns = 0;
        while next(&round, &tenants)[0].0 == 2 {
            round.served(&first(&round, &tenants, 1)[0], 2, 2, true);
            turns += 1;
        }
        assert_eq!(turns, MOST_KEPT + 1);
    }

    #[test]
    fn a_round_goes_on_behind_who_had_a_whole_turn() {
        let (tenants, mut round) = (tenants(), Round::default());
        assert_eq!(next(&round, &tenants), [(1, 1), (2, 2)]);
        round.served(&first(&round, &tenants, 1)[0], 1, 1, false);
        assert_eq!(next(&round, &tenants), [(2, 2), (3, 1)]);
        round.served(&first(&round, &tenants, 1)[0], 2, 2, false);
        assert_eq!(next(&round, &tenants), [(3, 1), (1, 1)]);
    }

    #[test]
    fn who_got_a_part_of_a_turn_gets_the_rest_of_it_first() {
        let (tenants, mut round) = (tenants(), Round::default());
        round.served(&first(&round, &tenants, 2)[1], 1, 1, false);
        assert_eq!(next(&round, &tenants), [(2, 1), (3, 1)]);
        // Who had no more to give is not waited for.
        round.served(&first(&round, &tenants, 1)[0], 1, 0, false);
        assert_eq!(next(&round, &tenants), [(3, 1), (1, 1)]);
    }
}
