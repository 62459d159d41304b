//! Which faults happen, in which order: drawn from the seed and from nothing else.

use std::time::Duration;

use fastrand::Rng;

use crate::fault::Fault;
use crate::host::LEASE;
use crate::workload::HOSTS;

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Events pushed.
    pub(crate) events: u32,
    /// Times that a host or Redis is killed.
    pub(crate) kills: usize,
}

impl Size {
    pub(crate) const LONG: Self = Self {
        events: 1_000_000,
        kills: 200,
    };
    pub(crate) const SHORT: Self = Self {
        events: 12_000,
        kills: 12,
    };
    /// One round of the faults that kill nothing for so many kills.
    const KILLS_PER_ROUND: usize = 16;
}

/// A fault, and how long all is well before it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) calm: Duration,
    pub(crate) fault: Fault,
}

/// The faults of both sites, one after another on each.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) redis: Vec<Step>,
    pub(crate) embedded: Vec<Step>,
}

impl Plan {
    pub(crate) fn new(seed: u64, size: Size) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rounds = (size.kills / Size::KILLS_PER_ROUND).max(1);
        let of_redis = size.kills / 4;
        let of_embedded = size.kills / 4;
        let of_hosts = size.kills - of_redis - of_embedded;

        let mut redis = Vec::new();
        for n in 0..of_hosts {
            redis.push(Fault::HostKilled {
                host: n % HOSTS,
                down: between(&mut rng, 0, 2500),
            });
        }
        for _ in 0..of_redis {
            redis.push(Fault::RedisKilled {
                down: between(&mut rng, 0, 3000),
            });
        }
        for n in 0..rounds {
            redis.extend(round_on_redis(&mut rng, n % HOSTS));
        }

        let mut embedded = Vec::new();
        for _ in 0..of_embedded {
            embedded.push(Fault::HostKilled {
                host: 0,
                down: between(&mut rng, 0, 2500),
            });
        }
        for _ in 0..rounds {
            embedded.extend(round_on_embedded(&mut rng));
        }
        Self {
            redis: shuffled(&mut rng, redis),
            embedded: shuffled(&mut rng, embedded),
        }
    }

    /// How many faults there are.
    pub(crate) fn len(&self) -> usize {
        self.redis.len() + self.embedded.len()
    }

    /// How long they take, about.
    pub(crate) fn duration(&self) -> Duration {
        let sum = |steps: &[Step]| {
            let each = steps.iter().map(|step| step.calm + step.fault.duration());
            each.sum::<Duration>()
        };
        sum(&self.redis).max(sum(&self.embedded))
    }
}

/// Each fault that the Redis site can suffer and that kills nothing. The promotion of a replica and
/// the move of a cluster's slot belong here once the store connects to such topologies.
fn round_on_redis(rng: &mut Rng, host: usize) -> Vec<Fault> {
    let other = (host + 1) % HOSTS;
    vec![
        Fault::HostPaused {
            host,
            pause: LEASE + between(rng, 1500, 3000),
        },
        Fault::HostStopped { host: other },
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
        Fault::ReceiverDown {
            lasts: between(rng, 1000, 4000),
        },
        Fault::ReceiverFailing {
            lasts: between(rng, 1000, 4000),
        },
    ]
}

/// Each fault that the embedded site can suffer and that kills nothing.
fn round_on_embedded(rng: &mut Rng) -> Vec<Fault> {
    vec![
        Fault::HostPaused {
            host: 0,
            pause: LEASE + between(rng, 1500, 3000),
        },
        Fault::HostStopped { host: 0 },
        Fault::DiskFull {
            lasts: between(rng, 2000, 5000),
        },
        Fault::ReceiverDown {
            lasts: between(rng, 1000, 4000),
        },
        Fault::ReceiverFailing {
            lasts: between(rng, 1000, 4000),
        },
    ]
}

fn shuffled(rng: &mut Rng, mut faults: Vec<Fault>) -> Vec<Step> {
    rng.shuffle(&mut faults);
    faults
        .into_iter()
        .map(|fault| Step {
            calm: between(rng, 300, 2000),
            fault,
        })
        .collect()
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
        let words = |seed| format!("{:?}", Plan::new(seed, Size::SHORT));
        assert_eq!(words(7), words(7));
        assert_ne!(words(7), words(8));
    }

    #[test]
    fn the_short_form_knows_every_fault_and_the_long_form_kills_as_often_as_it_says() {
        for size in [Size::SHORT, Size::LONG] {
            let plan = Plan::new(1, size);
            let all = || {
                plan.redis
                    .iter()
                    .chain(&plan.embedded)
                    .map(|step| &step.fault)
            };
            let kinds: HashSet<_> = all().map(discriminant).collect();
            assert_eq!(kinds.len(), Fault::KINDS);
            let kills = all().filter(|fault| fault.kills()).count();
            assert_eq!(kills, size.kills);
        }
    }
}
