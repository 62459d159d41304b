//! Which faults happen, in which order: drawn from the seed and from nothing else.

use std::time::Duration;

use fastrand::Rng;

use crate::fault::{Fault, Part};
use crate::host::LEASE;
use crate::workload::{SHARDS, Store};

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Events pushed.
    pub(crate) events: u32,
    /// Times that a host or a server is killed.
    pub(crate) kills: usize,
}

impl Size {
    pub(crate) const LONG: Self = Self {
        events: 1_000_000,
        kills: 200,
    };
    pub(crate) const SHORT: Self = Self {
        events: 12_000,
        kills: 16,
    };
    /// One round of the faults that kill nothing for so many kills.
    const KILLS_PER_ROUND: usize = 16;
    /// Events pushed in a second, at most: few enough for two cores to do without delay, for a server
    /// that nobody hurts must not seem dead.
    const PACE: u32 = 600;
}

/// A fault, and how long all is well before it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) calm: Duration,
    pub(crate) fault: Fault,
}

/// What happens to one site.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) store: Store,
    /// How many events are pushed to it.
    pub(crate) events: u32,
    /// One after another.
    pub(crate) steps: Vec<Step>,
}

/// The plans of these sites. That of one does not depend on which others there are, but for its size.
pub(crate) fn plans(seed: u64, size: Size, stores: &[Store]) -> Vec<Plan> {
    let weights: usize = stores.iter().map(|store| store.weight()).sum();
    let rounds = (size.kills / Size::KILLS_PER_ROUND).max(1);
    // As if all were laid side by side and cut: so the parts add up to the whole.
    let mut done = 0;
    let share = |all: usize, from: usize, to: usize| all * to / weights - all * from / weights;
    stores
        .iter()
        .map(|store| {
            let (from, to) = (done, done + store.weight());
            done = to;
            let kills = share(size.kills, from, to);
            let events = share(size.events as usize, from, to);
            Plan::new(
                seed,
                *store,
                kills,
                rounds,
                events.try_into().unwrap_or(u32::MAX),
            )
        })
        .collect()
}

impl Plan {
    fn new(seed: u64, store: Store, kills: usize, rounds: usize, events: u32) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_add(store as u64));
        let of_servers = match store {
            Store::Embedded => 0,
            Store::Redis | Store::Sentinels | Store::Cluster => kills / 2,
        };
        let mut faults = Vec::new();
        for n in 0..kills - of_servers {
            faults.push(Fault::HostKilled {
                host: n % store.hosts(),
                down: between(&mut rng, 0, 2500),
            });
        }
        for n in 0..of_servers {
            faults.push(server_killed(&mut rng, store, n));
        }
        for n in 0..rounds {
            faults.extend(round(&mut rng, store, n % store.hosts()));
        }
        rng.shuffle(&mut faults);
        let steps = faults.into_iter().map(|fault| Step {
            calm: between(&mut rng, 300, 2000),
            fault,
        });
        let mut plan = Self {
            store,
            events,
            steps: steps.collect(),
        };
        plan.slow_down();
        plan
    }

    /// How long it takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let each = self
            .steps
            .iter()
            .map(|step| step.calm + step.fault.duration());
        each.sum()
    }

    /// Spreads the faults over the time that the events need.
    fn slow_down(&mut self) {
        let all: usize = Store::ALL.iter().map(|store| store.weight()).sum();
        let pace = f64::from(Size::PACE) * as_f64(self.store.weight()) / as_f64(all);
        let needed = Duration::from_secs_f64(f64::from(self.events) / pace);
        let missing = needed.saturating_sub(self.duration());
        let steps = u32::try_from(self.steps.len().max(1)).unwrap_or(u32::MAX);
        for step in &mut self.steps {
            step.calm += missing / steps;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "weights are small numbers")]
fn as_f64(weight: usize) -> f64 {
    weight as f64
}

/// A server of the site is killed for the nth time.
fn server_killed(rng: &mut Rng, store: Store, n: usize) -> Fault {
    let of = part(rng);
    let down = between(rng, 0, 3000);
    match store {
        Store::Sentinels | Store::Cluster if n.is_multiple_of(2) => Fault::MasterKilled { of },
        Store::Sentinels | Store::Cluster => Fault::ReplicaKilled { of, down },
        Store::Redis | Store::Embedded => Fault::RedisKilled { down },
    }
}

/// Each fault that the site can suffer and that kills nothing.
fn round(rng: &mut Rng, store: Store, host: usize) -> Vec<Fault> {
    let other = (host + 1) % store.hosts();
    let mut faults = vec![
        Fault::HostPaused {
            host,
            pause: LEASE + between(rng, 1500, 3000),
        },
        Fault::HostStopped { host: other },
    ];
    match store {
        Store::Redis => faults.extend(round_on_redis(rng, host, other)),
        Store::Sentinels => faults.extend([
            Fault::MasterPaused { of: Part::Stream },
            Fault::ReplicaPromoted { of: Part::Stream },
            Fault::ClientsCut,
            Fault::FunctionsFlushed,
        ]),
        Store::Cluster => faults.extend(round_on_cluster(rng)),
        Store::Embedded => faults.push(Fault::DiskFull {
            lasts: between(rng, 2000, 5000),
        }),
    }
    if matches!(store, Store::Redis | Store::Embedded) {
        faults.extend([
            Fault::ReceiverDown {
                lasts: between(rng, 1000, 4000),
            },
            Fault::ReceiverFailing {
                lasts: between(rng, 1000, 4000),
            },
        ]);
    }
    faults
}

fn round_on_redis(rng: &mut Rng, host: usize, other: usize) -> Vec<Fault> {
    vec![
        Fault::RedisReadOnly {
            lasts: between(rng, 2000, 5000),
        },
        Fault::RedisFull {
            lasts: between(rng, 2000, 5000),
        },
        Fault::ClientsCut,
        Fault::FunctionsFlushed,
        Fault::GroupDestroyed,
        Fault::NetworkDelayed {
            host,
            by: between(rng, 50, 300),
            lasts: between(rng, 3000, 5000),
        },
        Fault::NetworkCut {
            host: other,
            lasts: between(rng, 1000, 4000),
        },
        Fault::NetworkSilent {
            host,
            lasts: between(rng, 3000, 6000),
        },
    ]
}

fn round_on_cluster(rng: &mut Rng) -> Vec<Fault> {
    let (first, second) = (shard(rng), shard(rng));
    // The last can take longer than leases last.
    let mut faults = vec![
        slot_moved(rng, Part::Stream, 300),
        slot_moved(rng, first, 300),
        slot_moved(rng, second, 1500),
    ];
    faults.extend([
        Fault::MasterPaused { of: part(rng) },
        Fault::ReplicaPromoted { of: part(rng) },
        Fault::ClientsCut,
        Fault::FunctionsFlushed,
        Fault::GroupDestroyed,
    ]);
    faults
}

fn slot_moved(rng: &mut Rng, of: Part, longest_pause: u64) -> Fault {
    Fault::SlotMoved {
        of,
        to: rng.usize(..2),
        steps: rng.u32(5..10),
        pause: between(rng, 100, longest_pause),
    }
}

fn shard(rng: &mut Rng) -> Part {
    Part::Shard(rng.u16(..SHARDS))
}

fn part(rng: &mut Rng) -> Part {
    match rng.u16(..=SHARDS) {
        SHARDS => Part::Stream,
        shard => Part::Shard(shard),
    }
}

fn between(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        let words = |seed| format!("{:?}", plans(seed, Size::SHORT, &Store::ALL));
        assert_eq!(words(7), words(7));
        assert_ne!(words(7), words(8));
    }

    #[test]
    fn each_form_knows_every_fault_and_kills_and_pushes_as_often_as_it_says() {
        for size in [Size::SHORT, Size::LONG] {
            let plans = plans(1, size, &Store::ALL);
            let all = || plans.iter().flat_map(|plan| &plan.steps);
            let kinds: HashSet<_> = all().map(|step| discriminant(&step.fault)).collect();
            assert_eq!(kinds.len(), Fault::KINDS);
            assert_eq!(all().filter(|step| step.fault.kills()).count(), size.kills);
            let events: u32 = plans.iter().map(|plan| plan.events).sum();
            assert_eq!(events, size.events);
        }
    }

    #[test]
    fn sites_can_be_left_out() {
        let plans = plans(1, Size::SHORT, &[Store::Cluster]);
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].events, Size::SHORT.events);
        let kills = plans[0].steps.iter().filter(|step| step.fault.kills());
        assert_eq!(kills.count(), Size::SHORT.kills);
    }

    #[test]
    fn many_events_take_their_time() {
        for plan in plans(1, Size::LONG, &Store::ALL) {
            let minutes = plan.duration().as_secs() / 60;
            assert!((25..40).contains(&minutes), "{} {minutes}", plan.store);
        }
    }
}
