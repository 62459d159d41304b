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

/// Where the round of the tenants goes on.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Behind this tenant.
    last_tenant: i64,
    /// The tenant that got only a part of its turn in the last round, and what is left of it.
    begun: (i64, usize),
}

impl Round {
    /// The tenants that can be served, at most so many.
    pub(super) fn turns(&self, tenants: &Tenants, limit: usize) -> Vec<Turn> {
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
        let open = tenants.open(self.last_tenant);
        open.take(limit).map(turn).collect()
    }

    /// A tenant got so many of its quota. The next round goes on with it if that was only a part of its
    /// turn, and behind it otherwise.
    pub(super) fn served(&mut self, tenant: &Turn, quota: usize, got: usize) {
        let left = tenant.left.saturating_sub(got);
        let cut = got == quota && left > 0;
        self.last_tenant = tenant.id - i64::from(cut);
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
        let turns = round.turns(tenants, 2);
        turns.iter().map(|turn| (turn.id, turn.turn())).collect()
    }

    #[test]
    fn a_round_goes_on_behind_who_had_a_whole_turn() {
        let (tenants, mut round) = (tenants(), Round::default());
        assert_eq!(next(&round, &tenants), [(1, 1), (2, 2)]);
        round.served(&round.turns(&tenants, 1)[0], 1, 1);
        assert_eq!(next(&round, &tenants), [(2, 2), (3, 1)]);
        round.served(&round.turns(&tenants, 1)[0], 2, 2);
        assert_eq!(next(&round, &tenants), [(3, 1), (1, 1)]);
    }

    #[test]
    fn who_got_a_part_of_a_turn_gets_the_rest_of_it_first() {
        let (tenants, mut round) = (tenants(), Round::default());
        round.served(&round.turns(&tenants, 2)[1], 1, 1);
        assert_eq!(next(&round, &tenants), [(2, 1), (3, 1)]);
        // Who had no more to give is not waited for.
        round.served(&round.turns(&tenants, 1)[0], 1, 0);
        assert_eq!(next(&round, &tenants), [(3, 1), (1, 1)]);
    }
}
