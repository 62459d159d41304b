//! A host with a plugin for each of ten thousand tenants: its start, its size, its first calls, and a
//! thousand new versions at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use wasmhook_runtime::Digest;
use wasmhook_testing::{Durability, RedisServer};

use crate::cpu;
use crate::results::{Results, percentile};
use crate::scenario::{connect, float, payload};
use crate::system::{Host, Receiver, Tenant, add_mark, component};

/// Tenants, if [`TENANTS_VARIABLE`] does not say another number.
const TENANTS: u64 = 10_000;
const TENANTS_VARIABLE: &str = "BENCH_TENANTS";
const FILE: &str = "redact.wasm";
const MANIFEST: &str = "[config]\nfields = \"card\"\n";
/// Compiled, each takes less than a megabyte.
const SETTINGS: &str = "[plugins]\ncache_bytes = 17179869184\n";
/// Events per second while versions are replaced: a tenth of what one such machine can deliver, so that
/// a rate that falls does so for want of a turn and not of a processor.
const PACE: u64 = 400;
/// Time between two batches of them.
const BEAT: Duration = Duration::from_millis(10);
/// Seconds over which the rate before the replacement is taken.
const BEFORE: u64 = 10;
/// How long all components may take to compile: half a second of one processor each.
const COMPILE_PATIENCE: Duration = Duration::from_secs(5_000);
/// How long what is delivered at that pace may take to arrive.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a host says of a plugin.
#[derive(Deserialize)]
pub(crate) struct Listed {
    tenant: String,
    state: String,
    digest: Option<String>,
    errors: u64,
    p99_us: Option<f64>,
}

impl Listed {
    /// Whether the version with this digest serves.
    pub(crate) fn serves(&self, digest: &str) -> bool {
        self.state == "serving" && self.digest.as_deref() == Some(digest)
    }
}

fn name(number: u64) -> String {
    format!("tenant-{number:05}")
}

pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    let tenants = match std::env::var(TENANTS_VARIABLE) {
        Ok(text) => text
            .parse::<u64>()
            .ok()
            .filter(|count| (10..=100_000).contains(count))
            .with_context(|| format!("{TENANTS_VARIABLE}: expected a number from 10 to 100000"))?,
        Err(_) => TENANTS,
    };
    // What was measured with another number of tenants is another figure.
    let (all, tenth) = if tenants == TENANTS {
        ("10k".to_owned(), "1k".to_owned())
    } else {
        (tenants.to_string(), (tenants / 10).to_string())
    };
    let receiver = Receiver::start().await?;
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    let mut connection = connect(&redis).await?;
    let written: Vec<Tenant<'_>> = (0..tenants)
        .map(|number| Tenant {
            plugin: Some((FILE, MANIFEST)),
            mark: Some(number),
            ..Tenant::new(name(number), &receiver.url)
        })
        .collect();
    let began = Instant::now();
    let host = Host::start_with(Some(&redis.url()), &written, SETTINGS).await?;
    wait_for(&host, COMPILE_PATIENCE, |listed| all_serve(listed, tenants)).await?;
    results.set(
        &format!("plugins_{all}_compile_s"),
        began.elapsed().as_secs_f64(),
    );

    let (host, ready) = host.restart().await?;
    let waited = Instant::now();
    wait_for(&host, PATIENCE, |listed| all_serve(listed, tenants)).await?;
    let start = ready + waited.elapsed();
    results.set(&format!("plugins_{all}_start_s"), start.as_secs_f64());
    let pid = host.process.pid()?;
    results.set(&format!("plugins_{all}_start_cpu_s"), cpu::seconds(pid)?);
    results.set(&format!("plugins_{all}_start_rss_mib"), resident_mib(pid)?);

    first_calls(results, &all, tenants, &host, &receiver, &mut connection).await?;
    results.set(&format!("plugins_{all}_rss_mib"), resident_mib(pid)?);
    let idle = Duration::from_secs(30);
    let before = cpu::seconds(pid)?;
    tokio::time::sleep(idle).await;
    let used = cpu::seconds(pid)? - before;
    results.set(
        &format!("plugins_{all}_idle_cpu_percent"),
        used / idle.as_secs_f64() * 100.0,
    );

    replace(results, &tenth, tenants, &host, &receiver, &mut connection).await?;
    host.process.stop().await?;
    receiver.process.stop().await
}

/// One event for each tenant, at a steady pace: what the only call of each plugin took, by the host's
/// own statistics, which are at most an eighth too high.
async fn first_calls(
    results: &mut Results,
    label: &str,
    tenants: u64,
    host: &Host,
    receiver: &Receiver,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    receiver.reset().await?;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for number in 0..tenants {
        pace.tick().await;
        push(connection, "first", number, &[number]).await?;
    }
    let mut stats = receiver.wait_for(tenants, PATIENCE).await?;
    let listed = list(host).await?;
    let failed: u64 = listed.iter().map(|plugin| plugin.errors).sum();
    anyhow::ensure!(failed == 0, "{failed} first calls failed");
    let mut times: Vec<f64> = listed.iter().filter_map(|plugin| plugin.p99_us).collect();
    anyhow::ensure!(
        times.len() as u64 == tenants,
        "{} of {tenants} plugins were called",
        times.len()
    );
    times.sort_by(f64::total_cmp);
    results.set(
        &format!("plugins_{label}_first_call_p99_ms"),
        percentile(&times, 0.99) / 1000.0,
    );
    stats.late_ms.sort_by(f64::total_cmp);
    results.set(
        &format!("plugins_{label}_first_delivery_p99_ms"),
        percentile(&stats.late_ms, 0.99),
    );
    Ok(())
}

/// Replaces the component of every tenth tenant while events of all tenants come at a steady pace.
async fn replace(
    results: &mut Results,
    label: &str,
    tenants: u64,
    host: &Host,
    receiver: &Receiver,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    let sample = std::fs::read(component(FILE))?;
    receiver.reset().await?;
    let mut events = Events::new(tenants);
    let before = Instant::now();
    while before.elapsed() < Duration::from_secs(BEFORE) {
        events.next(connection).await?;
    }
    let usual = float(receiver.stats().await?.count) / before.elapsed().as_secs_f64();

    let mut wanted = HashMap::new();
    let pid = host.process.pid()?;
    forget_peak(pid)?;
    let began = Instant::now();
    for number in (0..tenants).step_by(10) {
        let mut bytes = sample.clone();
        add_mark(&mut bytes, tenants + number);
        wanted.insert(name(number), Digest::of(&bytes).to_string());
        let plugins = host
            .folder
            .path()
            .join("tenants")
            .join(name(number))
            .join("plugins");
        let aside = plugins.join(".incoming");
        std::fs::write(&aside, bytes)?;
        std::fs::rename(&aside, plugins.join("10-shape.wasm"))?;
        // The pace is kept while there is much to write.
        if number % 100 == 0 {
            events.next(connection).await?;
        }
    }
    let arrived_before = receiver.stats().await?.count;
    let since = Instant::now();
    let mut looked = Instant::now();
    loop {
        events.next(connection).await?;
        if looked.elapsed() < Duration::from_secs(1) {
            continue;
        }
        looked = Instant::now();
        let listed = list(host).await?;
        let serve_new = |plugin: &&Listed| {
            let wanted = wanted.get(&plugin.tenant);
            wanted.is_some_and(|digest| plugin.serves(digest))
        };
        let done = listed.iter().filter(serve_new).count();
        if done == wanted.len() {
            break;
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "{done} of {} new versions serve after {PATIENCE:?}",
            wanted.len()
        );
    }
    let took = began.elapsed();
    let meanwhile = receiver.stats().await?.count - arrived_before;
    results.set(&format!("plugins_{label}_reload_s"), took.as_secs_f64());
    results.set(
        &format!("plugins_{label}_reload_rss_mib"),
        memory_mib(pid, PEAK)?,
    );
    results.set(
        &format!("plugins_{label}_reload_rate_ratio"),
        float(meanwhile) / since.elapsed().as_secs_f64() / usual,
    );
    // None was lost, and none failed: one that failed would come minutes later.
    receiver
        .wait_for(events.pushed, Duration::from_secs(20))
        .await?;
    Ok(())
}

/// Events at a steady pace, for one tenant after the other.
struct Events {
    tenants: u64,
    pushed: u64,
    pace: tokio::time::Interval,
}

impl Events {
    fn new(tenants: u64) -> Self {
        Self {
            tenants,
            pushed: 0,
            pace: tokio::time::interval(BEAT),
        }
    }

    async fn next(&mut self, connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
        /// No common divisor with a number of tenants that ends in zeros: all have their turn, none
        /// beside its neighbour.
        const STRIDE: u64 = 37;
        self.pace.tick().await;
        let count = PACE * u64::try_from(BEAT.as_millis())? / 1000;
        let tenants: Vec<u64> = (self.pushed..self.pushed + count)
            .map(|number| number * STRIDE % self.tenants)
            .collect();
        push(connection, "later", self.pushed, &tenants).await?;
        self.pushed += count;
        Ok(())
    }
}

/// Appends an event for each of these tenants to the stream.
async fn push(
    connection: &mut MultiplexedConnection,
    kind: &str,
    from: u64,
    tenants: &[u64],
) -> anyhow::Result<()> {
    let mut pipe = redis::pipe();
    for (number, tenant) in (from..).zip(tenants) {
        let (tenant, id) = (name(*tenant), format!("evt_{kind}_{number}"));
        let payload = payload();
        pipe.cmd("XADD")
            .arg("wasmhook:events")
            .arg("*")
            .arg(&["tenant", &tenant, "type", "bench.event", "id", &id])
            .arg(&["payload", &payload])
            .ignore();
    }
    pipe.exec_async(connection).await.context("XADD failed")
}

pub(crate) fn all_serve(listed: &[Listed], tenants: u64) -> bool {
    listed.len() as u64 == tenants && listed.iter().all(|plugin| plugin.state == "serving")
}

pub(crate) async fn wait_for(
    host: &Host,
    patience: Duration,
    is_so: impl Fn(&[Listed]) -> bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let listed = list(host).await?;
        if is_so(&listed) {
            return Ok(());
        }
        let serving = listed
            .iter()
            .filter(|plugin| plugin.state == "serving")
            .count();
        anyhow::ensure!(
            Instant::now() < until,
            "{serving} of {} plugins serve after {patience:?}",
            listed.len()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(crate) async fn list(host: &Host) -> anyhow::Result<Vec<Listed>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(format!("{}/v1/plugins", host.url));
    let bytes = request.send().await?.bytes().await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Memory of a process that is in RAM, in MiB.
fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    memory_mib(pid, "VmRSS:")
}

/// The most of it since the process began, or since it was forgotten.
const PEAK: &str = "VmHWM:";

/// Begin anew with the most memory that a process had.
fn forget_peak(pid: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .with_context(|| format!("cannot reset the highest resident memory of process {pid}"))
}

fn memory_mib(pid: u32, what: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{what} is not in the status of process {pid}"))?;
    Ok(float(kib) / 1024.0)
}
