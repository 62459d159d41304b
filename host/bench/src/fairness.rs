//! What a tenant notices of its neighbours: how late its events arrive beside tenants with mountains of
//! due work, and beside one whose guests spin.

use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use wasmhook_testing::{Durability, RedisServer};

use crate::queue;
use crate::results::{Results, percentile};
use crate::scenario::{PATIENCE, connect, xadd_for};
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
/// Seconds of measurement, after as many to warm up as follow.
const SECONDS: u64 = 30;
const WARM: u64 = 3;
/// Events for the tenant whose guests spin: more than they get through.
const SPINS: u64 = 20_000;

/// Beside tenants with a million due deliveries. The bar is about receivers that take their time;
/// receivers that answer at once leave no processor time to anybody, which is measured apart.
pub(crate) async fn heavy_tenants(results: &mut Results) -> anyhow::Result<()> {
    let alone = beside(0, FAR).await?;
    results.set("fair_alone_p99_ms", alone);
    let mut worst: f64 = 0.0;
    for tenants in HEAVY_TENANTS {
        let p99 = beside(tenants, FAR).await?;
        results.set(&format!("fair_beside_{tenants}_p99_ms"), p99);
        worst = worst.max(p99 / alone);
    }
    results.set("fair_p99_ratio", worst);
    let saturated = beside(1, Duration::ZERO).await?;
    results.set("fair_saturated_p99_ratio", saturated / alone);
    Ok(())
}

/// The light tenant's p99 in milliseconds beside so many heavy tenants.
async fn beside(heavy: usize, delay: Duration) -> anyhow::Result<f64> {
    let light = Receiver::start().await?;
    let far = Receiver::start_slow(delay).await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    if heavy > 0 {
        queue::fill(&redis, HEAVY, heavy).await?;
    }
    let mut tenants = vec![Tenant::new("light", &light.url)];
    for number in 0..heavy {
        tenants.push(Tenant::new(format!("tenant{number}"), &far.url));
    }
    let host = Host::start(Some(&redis.url()), &tenants).await?;
    let mut connection = connect(&redis).await?;
    let p99 = p99(&light, &mut connection).await?;
    if heavy > 0 {
        anyhow::ensure!(
            far.stats().await?.count > 0,
            "the heavy tenants were not served"
        );
    }
    host.process.stop().await?;
    far.process.stop().await?;
    light.process.stop().await?;
    Ok(p99)
}

/// Pushes events of the tenant `light` at a steady pace, and says how late they arrived.
async fn p99(receiver: &Receiver, connection: &mut MultiplexedConnection) -> anyhow::Result<f64> {
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / PACE));
    for number in 0..PACE * WARM {
        pace.tick().await;
        xadd_for("light", connection, number, 1).await?;
    }
    receiver.wait_for(PACE * WARM, PATIENCE).await?;
    receiver.reset().await?;
    for number in 0..PACE * SECONDS {
        pace.tick().await;
        xadd_for("light", connection, PACE * WARM + number, 1).await?;
    }
    let mut stats = receiver.wait_for(PACE * SECONDS, PATIENCE).await?;
    stats.late_ms.sort_by(f64::total_cmp);
    Ok(percentile(&stats.late_ms, 0.99))
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
        let p99 = p99(&light, &mut connection).await?;
        let name = if spinning { "beside" } else { "alone" };
        results.set(&format!("spin_{name}_p99_ms"), p99);
        measured.push(p99);
        host.process.stop().await?;
        light.process.stop().await?;
    }
    results.set("spin_neighbour_p99_ratio", measured[1] / measured[0]);
    Ok(())
}
