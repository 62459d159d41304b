//! Chaos suite of wasmhook: `cargo xtask chaos [--short] [--seed N]`.
//!
//! The real binary runs on sites of their own: one Redis, a master and its replica behind Sentinels, a
//! Redis Cluster, the embedded store. Producers push and receivers answer, and one fault after another
//! happens to each site. When all is healed and quiet, every acknowledged event is accounted for: what
//! was acknowledged, what arrived and what the stores keep must agree. The exit code is the verdict. The
//! same seed gives the same faults.
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
mod run;
mod servers;
mod site;
mod verdict;
mod workload;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::{Plan, Size};
use crate::workload::Store;

/// Breaks everything around wasmhook and accounts for every event.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Arguments {
    /// Two minutes instead of some forty.
    #[arg(long)]
    short: bool,
    /// Repeats the faults of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many events are pushed: 1,000,000, or 12,000 in the short form.
    #[arg(long)]
    events: Option<u32>,
    /// How often a host or a server is killed: 200 times, or 16 in the short form.
    #[arg(long)]
    kills: Option<usize>,
    /// The sites, parted by commas; all if missing.
    #[arg(long, value_enum, value_delimiter = ',')]
    sites: Vec<Store>,
}

impl Arguments {
    fn size(&self) -> Size {
        let size = if self.short { Size::SHORT } else { Size::LONG };
        Size {
            events: self.events.unwrap_or(size.events),
            kills: self.kills.unwrap_or(size.kills),
        }
    }

    fn stores(&self) -> Vec<Store> {
        let all = Store::ALL.into_iter();
        all.filter(|store| self.sites.is_empty() || self.sites.contains(store))
            .collect()
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
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with everything it started when it is interrupted. Otherwise returns whether all promises were
/// kept.
async fn interruptible(arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let size = arguments.size();
    let plans = plan::plans(seed, size, &arguments.stores());
    let longest = plans.iter().map(Plan::duration).max().unwrap_or_default();
    println!(
        "seed {seed}: {} events, {} kills, {} faults in all, about {} minutes",
        size.events,
        size.kills,
        plans.iter().map(|plan| plan.steps.len()).sum::<usize>(),
        longest.as_secs().div_ceil(60)
    );
    let ends = tokio::select! {
        ends = run::run(plans) => ends?,
        () = asked_to_end() => anyhow::bail!("interrupted"),
    };
    report::print(&ends, seed);
    Ok(ends.iter().all(run::End::is_good))
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
