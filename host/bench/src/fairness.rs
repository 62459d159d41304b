//! What a tenant notices of its neighbours: how late its events arrive beside tenants with mountains of
//! due work, beside those whose receivers are dead or slow, and beside one whose guests spin.

use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use wasmhook_testing::{Durability, RedisServer};

use crate::queue;
use crate::results::{Results, percentile};
use crate::scenario::{PATIENCE, connect, per_second, xadd_for};
use crate::system::{Host, Receiver, Tenant};

/// Deliveries that are due for the heavy tenants, over all of them.
const HEAVY: usize = 1_000_000;
/// How many heavy tenants share them.
const HEAVY_TENANTS: [usize; 3] = [1, 10, 100];
/// How long a heavy tenant's receiver takes, as one across the internet.
const FAR: Duration = Duration::from_millis(200);
/// Events per second of the tenant that is measured: less than half of what is its share beside a hundred
/// others, with 1024 deliveries under way at a time. Who asks for more than a share waits for it.
const PACE: u64 = 20;
/// The same beside dead and slow receivers, and how long its own takes: it needs fifty places at a time.
const BRISK: u64 = 500;
const NEAR: Duration = Duration::from_millis(100);
/// Tenants whose receivers are dead or slow, deliveries that are due for them, over all of them, and how long those
/// take: much longer than anybody waits for an answer, or half of that.
const HELD_UP_TENANTS: usize = 50;
const HELD_UP: usize = 100_000;
const NEVER: Duration = Duration::from_secs(3600);
const LATE: Duration = Duration::from_secs(5);
/// Events of a burst.
const BURST: u64 = 1_000;
/// Seconds of measurement in a round, after as many to warm up as follow.
const SECONDS: u64 = 15;
const WARM: u64 = 3;
/// How many rounds, in each of which all are measured once; the middle of each counts. A p99 is of the few events
/// that met with the most, so that of one stretch of time says more about the machine than about the host.
const ROUNDS: u64 = 5;
/// How many of these beside a receiver that answers at once: a million deliveries are gone after five.
const SATURATED_ROUNDS: u64 = 2;
/// Events for the tenant whose guests spin: more than they get through.
const SPINS: u64 = 20_000;

/// Beside tenants with a million due deliveries. The bar is about receivers that take their time;
/// receivers that answer at once leave no processor time to anybody, which is measured apart.
pub(crate) async fn heavy_tenants(results: &mut Results) -> anyhow::Result<()> {
    let mut beds = vec![Bed::start(0, FAR).await?];
    for tenants in HEAVY_TENANTS {
        beds.push(Bed::start(tenants, FAR).await?);
    }
    beds.push(Bed::start(1, Duration::ZERO).await?);
    let mut measured = vec![Vec::new(); beds.len()];
    for round in 0..ROUNDS {
        // The last one has nothing due any more after some rounds.
        let beds = &beds[..beds.len() - usize::from(round >= SATURATED_ROUNDS)];
        for (bed, measured) in beds.iter().zip(&mut measured) {
            measured.push(bed.measure(round).await?);
        }
    }
    let middle: Vec<f64> = measured.into_iter().map(middle).collect();
    let (alone, beside, saturated) = (
        middle[0],
        &middle[1..=HEAVY_TENANTS.len()],
        middle[HEAVY_TENANTS.len() + 1],
    );
    results.set("fair_alone_p99_ms", alone);
    for (tenants, p99) in HEAVY_TENANTS.iter().zip(beside) {
        results.set(&format!("fair_beside_{tenants}_p99_ms"), *p99);
    }
    let worst = beside.iter().copied().fold(0.0, f64::max);
    results.set("fair_p99_ratio", worst / alone);
    results.set("fair_saturated_p99_ratio", saturated / alone);
    Ok(())
}

/// A Redis with the due deliveries of some heavy tenants. Hosts are there for a measurement only, so that no other
/// takes processor time meanwhile.
struct Bed {
    heavy: usize,
    light: Receiver,
    far: Receiver,
    redis: RedisServer,
}

impl Bed {
    /// With so many heavy tenants, whose receiver takes `delay` to answer.
    async fn start(heavy: usize, delay: Duration) -> anyhow::Result<Self> {
        let bed = Self {
            heavy,
            light: Receiver::start().await?,
            far: Receiver::start_slow(delay).await?,
            redis: RedisServer::start_with(Durability::EverySecond, &[])
                .context("cannot start a Redis server")?,
        };
        if heavy > 0 {
            queue::fill(&bed.redis, HEAVY, heavy).await?;
        }
        Ok(bed)
    }

    /// The light tenant's p99 in milliseconds, in a round of this number.
    async fn measure(&self, round: u64) -> anyhow::Result<f64> {
        let mut tenants = vec![Tenant::new("light", &self.light.url)];
        for number in 0..self.heavy {
            tenants.push(Tenant::new(format!("tenant{number}"), &self.far.url));
        }
        let host = Host::start(Some(&self.redis.url()), &tenants).await?;
        self.far.reset().await?;
        let mut connection = connect(&self.redis).await?;
        let p99 = p99(&self.light, &mut connection, round, PACE).await?;
        if self.heavy > 0 {
            anyhow::ensure!(
                self.far.stats().await?.count > 0,
                "the heavy tenants were not served"
            );
        }
        // In order, or what it holds would count as in flight in the next round.
        host.process.finish().await?;
        Ok(p99)
    }
}

fn middle(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    percentile(&rounds, 0.5)
}

/// Pushes so many events of the tenant `light` a second, and says how late they arrived.
async fn p99(
    receiver: &Receiver,
    connection: &mut MultiplexedConnection,
    round: u64,
    pace: u64,
) -> anyhow::Result<f64> {
    let first = round * pace * (WARM + SECONDS);
    receiver.reset().await?;
    push_paced(connection, first, WARM, pace).await?;
    receiver.wait_for(pace * WARM, PATIENCE).await?;
    receiver.reset().await?;
    push_paced(connection, first + pace * WARM, SECONDS, pace).await?;
    let mut stats = receiver.wait_for(pace * SECONDS, PATIENCE).await?;
    stats.late_ms.sort_by(f64::total_cmp);
    Ok(percentile(&stats.late_ms, 0.99))
}

/// Pushes events of the tenant `light` for so many seconds, numbered from `first` on.
async fn push_paced(
    connection: &mut MultiplexedConnection,
    first: u64,
    seconds: u64,
    pace: u64,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / pace));
    for number in first..first + seconds * pace {
        tick.tick().await;
        xadd_for("light", connection, number, 1).await?;
    }
    Ok(())
}

/// Beside tenants whose receivers take connections and answer nothing, once these have been so for a while, and beside
/// those whose receivers take seconds to accept. Of the latter all want more than their part of the places, so it is
/// measured how fast the tenant gets a burst delivered with its own.
pub(crate) async fn slow_receivers(results: &mut Results) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    for (name, delay) in [("alone", None), ("dead", Some(NEVER)), ("slow", Some(LATE))] {
        let light = Receiver::start_slow(NEAR).await?;
        let others = Receiver::start_slow(delay.unwrap_or_default()).await?;
        let held_up = delay.map_or(0, |_| HELD_UP_TENANTS);
        let redis = RedisServer::start_with(Durability::EverySecond, &[])
            .context("cannot start a Redis server")?;
        if held_up > 0 {
            queue::fill(&redis, HELD_UP, held_up).await?;
        }
        let mut tenants = vec![Tenant::new("light", &light.url)];
        tenants.extend((0..held_up).map(|n| Tenant::new(format!("tenant{n}"), &others.url)));
        let host = Host::start(Some(&redis.url()), &tenants).await?;
        let mut connection = connect(&redis).await?;
        // Three times as long as the host waits for an answer.
        tokio::time::sleep(Duration::from_secs(35)).await;
        if name == "slow" {
            xadd_for("light", &mut connection, 0, BURST).await?;
            let stats = light.wait_for(BURST, PATIENCE).await?;
            results.set("brisk_slow_per_s", per_second(&stats));
        } else {
            let p99 = p99(&light, &mut connection, 0, BRISK).await?;
            results.set(&format!("brisk_{name}_p99_ms"), p99);
            measured.push(p99);
        }
        host.process.stop().await?;
    }
    results.set("dead_neighbours_p99_ratio", measured[1] / measured[0]);
    Ok(())
}

/// Beside one tenant whose guests use all the processor time that they get.
pub(crate) async fn spinning_guest(results: &mut Results) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    for spinning in [false, true] {
        let light = Receiver::start().await?;
        let redis = RedisServer::start_with(Durability::EverySecond, &[])
            .context("cannot start a Redis server")?;
        let mut connection = connect(&redis).await?;
        let spin = Tenant {
            plugin: Some((
                "hostile.wasm",
                "failure = \"retry\"\n[config]\nbehaviour = \"spin\"\n",
            )),
            ..Tenant::new("spin", &light.url)
        };
        let tenants = [Tenant::new("light", &light.url).redacting(), spin];
        let host = Host::start(Some(&redis.url()), &tenants).await?;
        if spinning {
            for batch in 0..SPINS / 500 {
                xadd_for("spin", &mut connection, batch * 500, 500).await?;
            }
        }
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            rounds.push(p99(&light, &mut connection, round, PACE).await?);
        }
        let p99 = middle(rounds);
        let name = if spinning { "beside" } else { "alone" };
        results.set(&format!("spin_{name}_p99_ms"), p99);
        measured.push(p99);
        host.process.stop().await?;
        light.process.stop().await?;
    }
    results.set("spin_neighbour_p99_ratio", measured[1] / measured[0]);
    Ok(())
}
