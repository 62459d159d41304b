//! Chaos suite of wasmhook: `cargo xtask chaos [--short] [--seed N]`.
//!
//! The real binary runs on Redis (two hosts) and on the embedded store (one host) while producers
//! push and receivers answer, and one fault after another happens to each of the two. When all is
//! healed and quiet, every acknowledged event is accounted for: what was acknowledged, what arrived
//! and what the stores keep must agree. The exit code is the verdict. The same seed gives the same
//! faults.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "progress and the verdict are what this program says"
)]

mod disk;
mod fault;
mod happening;
mod host;
mod ledger;
mod plan;
mod producer;
mod proxy;
mod receiver;
mod report;
mod site;
mod verdict;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::ledger::Ledger;
use crate::plan::{Plan, Size};
use crate::producer::{Producers, Progress};
use crate::site::Site;
use crate::verdict::Verdict;
use crate::workload::Store;

/// How long producers may go on being refused when all is well again: one that never succeeds is a
/// finding, not a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Breaks everything around wasmhook and accounts for every event.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Arguments {
    /// A few minutes instead of most of an hour.
    #[arg(long)]
    short: bool,
    /// Repeats the faults of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many events are pushed: 1,000,000, or 12,000 in the short form.
    #[arg(long)]
    events: Option<u32>,
    /// How often a host or Redis is killed: 200 times, or 12 in the short form.
    #[arg(long)]
    kills: Option<usize>,
}

impl Arguments {
    fn size(&self) -> Size {
        let size = if self.short { Size::SHORT } else { Size::LONG };
        Size {
            events: self.events.unwrap_or(size.events),
            kills: self.kills.unwrap_or(size.kills),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // For the producers' client. Fails only if it was set before, which nothing does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(interruptible(&arguments)));
    match done {
        Ok(verdict) if verdict.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with everything it started when it is interrupted.
async fn interruptible(arguments: &Arguments) -> anyhow::Result<Verdict> {
    tokio::select! {
        verdict = run(arguments) => verdict,
        () = asked_to_end() => anyhow::bail!("interrupted"),
    }
}

/// Returns at SIGINT or SIGTERM.
async fn asked_to_end() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let size = arguments.size();
    let plan = Plan::new(seed, size);
    println!(
        "seed {seed}: {} events, {} kills, {} faults in all, about {} minutes",
        size.events,
        size.kills,
        plan.len(),
        plan.duration().as_secs().div_ceil(60)
    );
    let ledger = Arc::new(Ledger::new(size.events));
    let mut redis = Site::start(Store::Redis, &ledger).await?;
    let mut embedded = Site::start(Store::Embedded, &ledger).await?;
    let progress = Progress::new(size.events);
    let producers = Producers::start(&[&redis, &embedded], &ledger, &progress)?;
    let (first, second) = tokio::try_join!(
        redis.endure(&plan.redis, &progress),
        embedded.endure(&plan.embedded, &progress),
    )?;
    let mut happenings = first;
    happenings.extend(second);
    eprintln!("all is well again; waiting for everything to be delivered");
    producers.finish(PATIENCE).await;
    let mut sites = [redis, embedded];
    let verdict = verdict::judge(&mut sites, &ledger, &mut happenings).await?;
    report::print(&happenings, &verdict, seed);
    Ok(verdict)
}
