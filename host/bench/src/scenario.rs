//! What is measured of the whole host.

use std::time::Duration;

use anyhow::Context as _;
use wasmhook_testing::{Durability, RedisServer};

use crate::cpu;
use crate::receiver::{PUSHED_AT, Stats, now};
use crate::results::{Results, percentile};
use crate::system::{Host, Receiver, Tenant, component};

/// Deliveries per measurement of throughput.
const EVENTS: u64 = 40_000;
/// Events per second, and seconds, of the measurement of latency.
pub(crate) const PACE: u64 = 50;
const SECONDS: u64 = 20;
/// Events pushed in one call.
const BATCH: u64 = 500;
/// How long a measurement may take before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A count as a float.
pub(crate) fn float(count: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a benchmark are far below 2^53"
    )]
    let float = count as f64;
    float
}

/// Requests per second between the first and the last.
pub(crate) fn per_second(stats: &Stats) -> f64 {
    float(stats.count.saturating_sub(1)) / (stats.last - stats.first)
}

/// 1 KiB of JSON that says when it was made.
pub(crate) fn payload() -> String {
    let head = std::str::from_utf8(PUSHED_AT).unwrap_or_default();
    let at = now() * 1e9;
    let mut text = format!("{{{head}{at:.0}\",\"card\":\"4242424242424242\",\"filler\":\"");
    while text.len() < 1022 {
        text.push('x');
    }
    text.push_str("\"}");
    text
}

/// The tenant most scenarios have, with or without the sample transform.
fn bench(receiver: &Receiver, plugin: bool) -> Tenant<'_> {
    let tenant = Tenant::bench(&receiver.url);
    if plugin { tenant.redacting() } else { tenant }
}

/// Appends events to the stream, as a producer would.
async fn xadd(
    connection: &mut redis::aio::MultiplexedConnection,
    from: u64,
    count: u64,
) -> anyhow::Result<()> {
    xadd_for("bench", connection, from, count).await
}

/// The same for any tenant.
pub(crate) async fn xadd_for(
    tenant: &str,
    connection: &mut redis::aio::MultiplexedConnection,
    from: u64,
    count: u64,
) -> anyhow::Result<()> {
    let mut pipe = redis::pipe();
    for number in from..from + count {
        let id = format!("evt_{number}");
        let payload = payload();
        pipe.cmd("XADD").arg("wasmhook:events").arg("*");
        pipe.arg(&[
            "tenant",
            tenant,
            "type",
            "bench.event",
            "id",
            &id,
            "payload",
            &payload,
        ])
        .ignore();
    }
    pipe.exec_async(connection).await.context("XADD failed")
}

pub(crate) async fn connect(
    redis: &RedisServer,
) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    let config =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    Ok(redis::Client::open(redis.url())?
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

/// Through Redis, without a plugin and with the Rust transform.
pub(crate) async fn redis(results: &mut Results) -> anyhow::Result<()> {
    for (name, plugin) in [("redis_plain", false), ("redis_transform", true)] {
        let receiver = Receiver::start().await?;
        let redis = RedisServer::start_with(Durability::EverySecond, &[])
            .context("cannot start a Redis server")?;
        let mut connection = connect(&redis).await?;
        let host = Host::start(Some(&redis.url()), &[bench(&receiver, plugin)]).await?;
        // Warms connections and instances; not counted.
        xadd(&mut connection, 0, BATCH).await?;
        receiver.wait_for(BATCH, PATIENCE).await?;
        receiver.reset().await?;
        let (host_pid, redis_pid) = (
            host.process.pid()?,
            redis.pid().context("Redis ended early")?,
        );
        let before = (cpu::seconds(host_pid)?, cpu::seconds(redis_pid)?);
        let before_bytes = network_bytes(&redis)?;
        for batch in 0..EVENTS / BATCH {
            xadd(&mut connection, (batch + 1) * BATCH, BATCH).await?;
        }
        let stats = receiver.wait_for(EVENTS, PATIENCE).await?;
        let used = (
            cpu::seconds(host_pid)? - before.0,
            cpu::seconds(redis_pid)? - before.1,
        );
        results.rate(name, per_second(&stats));
        if !plugin {
            let per_delivery = |seconds: f64| seconds * 1e6 / float(EVENTS);
            results.set("host_cpu_us", per_delivery(used.0));
            results.set("redis_cpu_us", per_delivery(used.1));
            let bytes = network_bytes(&redis)? - before_bytes;
            results.set("redis_net_bytes", float(bytes) / float(EVENTS));
            if let Some(floor) = results.get("floor_cpu_us") {
                results.set("cpu_ratio", per_delivery(used.0 + used.1) / floor);
            }
        }
        let left: u64 = redis::cmd("XLEN")
            .arg("wasmhook:events")
            .query_async(&mut connection)
            .await?;
        anyhow::ensure!(left < BATCH * 2, "the stream still holds {left} entries");
        host.process.stop().await?;
        receiver.process.stop().await?;
    }
    Ok(())
}

/// Bytes that a Redis received and sent since its start.
fn network_bytes(redis: &RedisServer) -> anyhow::Result<u64> {
    let info: String = redis.ask(&["INFO", "stats"])?;
    let figure = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| *key == name)?
            .1
            .trim()
            .parse::<u64>()
            .ok()
    };
    figure("total_net_input_bytes")
        .zip(figure("total_net_output_bytes"))
        .map(|(received, sent)| received + sent)
        .context("Redis does not tell its traffic")
}

/// Through Redis, each event to ten endpoints.
pub(crate) async fn fanout(results: &mut Results) -> anyhow::Result<()> {
    const ENDPOINTS: u64 = 10;
    let receiver = Receiver::start().await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    let mut connection = connect(&redis).await?;
    let url = redis.url();
    let tenant = Tenant {
        endpoints: 10,
        ..Tenant::bench(&receiver.url)
    };
    let host = Host::start(Some(&url), &[tenant]).await?;
    xadd(&mut connection, 0, BATCH).await?;
    receiver.wait_for(BATCH * ENDPOINTS, PATIENCE).await?;
    receiver.reset().await?;
    for batch in 0..EVENTS / ENDPOINTS / BATCH {
        xadd(&mut connection, (batch + 1) * BATCH, BATCH).await?;
    }
    let stats = receiver.wait_for(EVENTS, PATIENCE).await?;
    results.rate("redis_fanout10", per_second(&stats));
    host.process.stop().await?;
    receiver.process.stop().await
}

/// Through one Redis by one host and by two: what a delivery costs in all.
pub(crate) async fn two_hosts(results: &mut Results) -> anyhow::Result<()> {
    let (one, two) = (cost_with(1).await?, cost_with(2).await?);
    results.set("one_host_cpu_us", one);
    results.set("two_hosts_cpu_us", two);
    results.set("two_hosts_cpu_ratio", two / one);
    Ok(())
}

/// Processor time of so many hosts and their Redis for a delivery, in microseconds.
async fn cost_with(count: usize) -> anyhow::Result<f64> {
    const WARM_UP: u64 = 20_000;
    let receiver = Receiver::start().await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    let mut connection = connect(&redis).await?;
    let mut hosts = Vec::new();
    for _ in 0..count {
        hosts.push(Host::start(Some(&redis.url()), &[Tenant::bench(&receiver.url)]).await?);
    }
    // The memory that a host comes to use is new to it once, and costs what deliveries do not.
    xadd(&mut connection, 0, WARM_UP).await?;
    receiver.wait_for(WARM_UP, PATIENCE).await?;
    receiver.reset().await?;
    let used = |hosts: &[Host]| -> anyhow::Result<f64> {
        let mut sum = cpu::seconds(redis.pid().context("Redis ended early")?)?;
        for host in hosts {
            sum += cpu::seconds(host.process.pid()?)?;
        }
        Ok(sum)
    };
    let before = used(&hosts)?;
    for batch in 0..EVENTS / BATCH {
        xadd(&mut connection, WARM_UP + batch * BATCH, BATCH).await?;
    }
    receiver.wait_for(EVENTS, PATIENCE).await?;
    let cost = (used(&hosts)? - before) * 1e6 / float(EVENTS);
    for host in hosts {
        host.process.stop().await?;
    }
    receiver.process.stop().await?;
    Ok(cost)
}

/// On the embedded store, pushed over HTTP.
pub(crate) async fn embedded(results: &mut Results) -> anyhow::Result<()> {
    for (name, plugin) in [("embedded_plain", false), ("embedded_transform", true)] {
        let receiver = Receiver::start().await?;
        let host = Host::start(None, &[bench(&receiver, plugin)]).await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}/v1/events", host.url);
        post(&client, &url, 0).await?;
        receiver.wait_for(BATCH, PATIENCE).await?;
        receiver.reset().await?;
        let before = cpu::seconds(host.process.pid()?)?;
        for batch in 0..EVENTS / BATCH {
            post(&client, &url, (batch + 1) * BATCH).await?;
        }
        let stats = receiver.wait_for(EVENTS, PATIENCE).await?;
        results.rate(name, per_second(&stats));
        if !plugin {
            let used = cpu::seconds(host.process.pid()?)? - before;
            results.set("embedded_cpu_us", used * 1e6 / float(EVENTS));
        }
        host.process.stop().await?;
        receiver.process.stop().await?;
    }
    Ok(())
}

async fn post(client: &reqwest::Client, url: &str, from: u64) -> anyhow::Result<()> {
    let lines: Vec<String> = (from..from + BATCH)
        .map(|number| {
            let head =
                format!("\"tenant\":\"bench\",\"type\":\"bench.event\",\"id\":\"evt_{number}\"");
            format!("{{{head},\"payload\":{}}}", payload())
        })
        .collect();
    let body = lines.join("\n");
    let request = client
        .post(url)
        .header("content-type", "application/x-ndjson")
        .body(body);
    let status = request.send().await?.status();
    anyhow::ensure!(status == 202, "events were answered with {status}");
    Ok(())
}

/// From push to arrival, through Redis, at a steady pace.
pub(crate) async fn latency(results: &mut Results) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    let mut connection = connect(&redis).await?;
    let host = Host::start(Some(&redis.url()), &[Tenant::bench(&receiver.url)]).await?;
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / PACE));
    for number in 0..PACE {
        pace.tick().await;
        xadd(&mut connection, number, 1).await?;
    }
    receiver.wait_for(PACE, PATIENCE).await?;
    receiver.reset().await?;
    for number in 0..PACE * SECONDS {
        pace.tick().await;
        xadd(&mut connection, PACE + number, 1).await?;
    }
    let mut stats = receiver.wait_for(PACE * SECONDS, PATIENCE).await?;
    stats.late_ms.sort_by(f64::total_cmp);
    results.set("latency_p50_ms", percentile(&stats.late_ms, 0.5));
    results.set("latency_p99_ms", percentile(&stats.late_ms, 0.99));
    let (host_pid, redis_pid) = (
        host.process.pid()?,
        redis.pid().context("Redis ended early")?,
    );
    let before = cpu::seconds(host_pid)? + cpu::seconds(redis_pid)?;
    let idle = Duration::from_secs(20);
    tokio::time::sleep(idle).await;
    let used = cpu::seconds(host_pid)? + cpu::seconds(redis_pid)? - before;
    results.set("idle_cpu_percent", used / idle.as_secs_f64() * 100.0);
    host.process.stop().await?;
    receiver.process.stop().await
}

/// From replacing a component on disk to the first delivery made by it, and what became of the deliveries
/// before, meanwhile and after.
pub(crate) async fn reload(results: &mut Results) -> anyhow::Result<()> {
    /// Events pushed before, and after the first delivery by the new component.
    const BESIDE: u64 = 1_000;
    /// The new component has the events of a region go to that region's archive, too.
    const ENDPOINTS: u64 = 2;
    let receiver = Receiver::start().await?;
    let tenant = Tenant {
        endpoints: usize::try_from(ENDPOINTS)?,
        ..bench(&receiver, true)
    };
    let host = Host::start(None, &[tenant]).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/events", host.url);
    let plugins = host.folder.path().join("tenants/bench/plugins");
    let mut replaced = f64::NAN;
    let mut serves_since = None;
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    let mut pushed = 0;
    while serves_since.is_none_or(|since| pushed < since + BESIDE) {
        pace.tick().await;
        if pushed == BESIDE {
            let aside = plugins.join(".incoming");
            std::fs::copy(component("tag_and_route.wasm"), &aside)?;
            std::fs::rename(&aside, plugins.join("10-shape.wasm"))?;
            replaced = now();
        }
        let body = format!(
            "{{\"tenant\":\"bench\",\"type\":\"bench.event\",\"id\":\"evt_{pushed}\",\"payload\":{{\"region\":\"main\"}}}}"
        );
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(body);
        let status = request.send().await?.status();
        anyhow::ensure!(status == 202, "an event was answered with {status}");
        pushed += 1;
        if serves_since.is_none()
            && pushed % 50 == 0
            && let Some(first) = receiver.stats().await?.first_tagged
        {
            results.set("reload_ms", (first - replaced) * 1000.0);
            serves_since = Some(pushed);
        }
        anyhow::ensure!(
            pushed < 60 * BESIDE,
            "no delivery was made by the new component"
        );
    }
    // What is lost never comes, and what failed comes again and is counted by the host.
    receiver.wait_for(pushed * ENDPOINTS, PATIENCE).await?;
    results.set("reload_failed_deliveries", failed_attempts(&host).await?);
    host.process.stop().await?;
    receiver.process.stop().await
}

/// The attempts that did not end well, by the host's own metrics.
pub(crate) async fn failed_attempts(host: &Host) -> anyhow::Result<f64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(format!("{}/metrics", host.url));
    let text = request.send().await?.text().await?;
    let mut failed = 0.0;
    let mut seen = false;
    for line in text.lines() {
        if line.starts_with("wasmhook_attempts_total{") {
            seen = true;
            if !line.contains("outcome=\"accepted\"") {
                let count = line.rsplit(' ').next().unwrap_or_default();
                failed += count.parse::<f64>().context("a count is no number")?;
            }
        }
    }
    anyhow::ensure!(seen, "the host counts no attempts");
    Ok(failed)
}
