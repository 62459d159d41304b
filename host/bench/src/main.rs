//! Benchmark of wasmhook: the real binary, its own Redis and receiver, and the floor in the same run.
//!
//! `cargo xtask bench [PART…]` with parts `floor`, `redis`, `fanout`, `hosts`, `embedded`, `latency`,
//! `delayed`, `plugin`, `reload`, `memory`, `tenants`, `backlog`, `fairness`, `slow`, `spin`; all of these without a name.
//! Two run by name only: `plugins10k` compiles ten thousand components, which takes a quarter of an hour and 10 GB
//! of disk (`BENCH_TENANTS` sets another number), and `open10m` fills a file with ten million deliveries, which takes
//! five minutes and 5 GB. Results are merged into `target/bench/latest.json`, one flat object.
//! These machines are noisy: what counts are the ratios to the floor, measured in the same round.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results and progress are what this program says"
)]

mod cpu;
mod delayed;
mod fairness;
mod floor;
mod interpreted;
mod many_plugins;
mod opening;
mod plugin;
mod queue;
mod receiver;
mod results;
mod scenario;
mod system;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::results::Results;

/// The host's: the floor's client must not be slower for reasons of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The parts, in the order in which they run.
const PARTS: [&str; 15] = [
    "floor", "redis", "fanout", "hosts", "embedded", "latency", "delayed", "plugin", "reload",
    "memory", "tenants", "backlog", "fairness", "slow", "spin",
];
/// Those that are measured side by side, in rounds.
const THROUGHPUT: [&str; 5] = ["floor", "redis", "fanout", "hosts", "embedded"];
/// How many rounds; the middle of each figure counts.
const ROUNDS: usize = 3;
/// The parts that run by name only.
const MANY_PLUGINS: &str = "plugins10k";
const OPENING: &str = "open10m";

fn main() -> ExitCode {
    // For our own HTTP client. Fails only if it was set before, which nothing does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    // The receiver and the floor's client run as processes of their own, so that each one's
    // processor time can be told from the others'.
    let done = match words.first().map(String::as_str) {
        Some("receiver") => runtime(receiver::run(words.get(1))),
        Some("floor-client") => runtime(floor::client(words.get(1).cloned().unwrap_or_default())),
        _ => runtime(until_told(measure(words))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run)
}

/// One round of what is measured side by side; each has a floor of its own.
async fn throughput(round: &mut Results, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    if ["floor", "redis", "fanout", "embedded"]
        .into_iter()
        .any(&wanted)
    {
        floor::measure(round).await?;
    }
    if wanted("redis") {
        scenario::redis(round).await?;
    }
    if wanted("fanout") {
        scenario::fanout(round).await?;
    }
    if wanted("hosts") {
        scenario::two_hosts(round).await?;
    }
    if wanted("embedded") {
        scenario::embedded(round).await?;
    }
    Ok(())
}

/// Ends what was started when this process is told to end: dropping it does.
async fn until_told(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => anyhow::bail!("ended by a signal"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("ended by a signal"),
    }
}

async fn measure(parts: Vec<String>) -> anyhow::Result<()> {
    for part in &parts {
        anyhow::ensure!(
            PARTS.contains(&part.as_str()) || [MANY_PLUGINS, OPENING].contains(&part.as_str()),
            "unknown part {part}; expected {}, {MANY_PLUGINS}, {OPENING}",
            PARTS.join(", ")
        );
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|asked| asked == part);
    let mut results = Results::load();
    if THROUGHPUT.into_iter().any(wanted) {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let mut round = Results::default();
            throughput(&mut round, wanted).await?;
            rounds.push(round);
        }
        println!("the middle of {ROUNDS} rounds:");
        results.add_middle(&rounds);
    }
    if wanted("latency") {
        scenario::latency(&mut results).await?;
    }
    if wanted("delayed") {
        delayed::measure(&mut results).await?;
    }
    if wanted("plugin") {
        plugin::measure(&mut results).await?;
    }
    if wanted("reload") {
        scenario::reload(&mut results).await?;
        interpreted::measure(&mut results).await?;
    }
    if wanted("memory") {
        queue::memory(&mut results).await?;
    }
    if wanted("tenants") {
        queue::tenants(&mut results).await?;
    }
    if wanted("backlog") {
        queue::backlog(&mut results).await?;
    }
    if wanted("fairness") {
        fairness::heavy_tenants(&mut results).await?;
    }
    if wanted("slow") {
        fairness::slow_receivers(&mut results).await?;
    }
    if wanted("spin") {
        fairness::spinning_guest(&mut results).await?;
    }
    if parts.iter().any(|part| part == MANY_PLUGINS) {
        many_plugins::measure(&mut results).await?;
    }
    if parts.iter().any(|part| part == OPENING) {
        opening::measure(&mut results).await?;
    }
    results.save()
}
