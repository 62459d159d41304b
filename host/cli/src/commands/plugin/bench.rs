//! `wasmhook plugin bench`

use std::time::{Duration, Instant};

use serde::Serialize;
use wasmhook_core::Event;
use wasmhook_core::request::Content;
use wasmhook_runtime::{PluginHost, Reuse};

use super::answer::{Answer, Called};
use super::bytes;
use super::input::{self, Version};
use super::question::Asking;
use super::trial::Trial;
use crate::args::BenchPlugin;
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::output;

/// One row of measuring stops after this long, however many calls are left.
const PATIENCE: Duration = Duration::from_secs(30);
/// The share of calls that are made before those that are measured.
const WARM_UP: usize = 10;

/// What one kind of call takes on one kind of instance.
#[derive(Serialize)]
struct Measured {
    /// The interface.
    asked: &'static str,
    /// `fresh`: a new instance for each call; or `reused`.
    instance: &'static str,
    calls: usize,
    failed: usize,
    /// The whole call on the wall.
    p50_us: f64,
    p99_us: f64,
    /// Processor time of the guest.
    cpu_p50_us: f64,
    cpu_p99_us: f64,
    memory_bytes: usize,
    #[serde(skip)]
    first_error: Option<String>,
}

/// What is asked, and how often.
struct Task<'a> {
    events: &'a [Event],
    asking: &'a Asking,
    calls: usize,
}

/// Measures whole calls.
pub(super) async fn bench(config: &Config, args: BenchPlugin, json: bool) -> anyhow::Result<()> {
    let events = input::events(config, &args.events)?;
    let asking = Asking::new(config, &args.receivers, &args.file)?;
    let trial = Trial::new(config)?;
    let reused = reused(trial.host(), &args.file, &events).await?;
    let task = Task {
        events: &events,
        asking: &asking,
        calls: args.calls,
    };
    let mut rows = Vec::new();
    for (instance, reuse) in [("fresh", Reuse::Fresh), ("reused", reused)] {
        let mut version = Version::new(trial.host(), &args.file, Some(reuse))?;
        for asked in ["resolve", "transform", "sign", "classify"] {
            rows.extend(task.measure(&mut version, asked, instance).await?);
        }
    }
    if rows.is_empty() {
        return Err(Coded::new(
            Exit::Failure,
            format!(
                "{} sees none of these events: its manifest names other types, no endpoint names it as its \
                 signer, or there is no --answer to judge",
                args.file.display()
            ),
        ));
    }
    rows.sort_by_key(|row| row.asked);
    if json {
        output::json(&rows)?;
    } else {
        print(&rows);
    }
    let failed = rows.iter().find_map(|row| row.first_error.as_ref());
    match failed {
        None => Ok(()),
        Some(error) => Err(Coded::new(
            Exit::Failure,
            format!("calls failed, the first: {error}"),
        )),
    }
}

/// How the host would reuse an instance; its default if it would not.
async fn reused(
    runtime: &PluginHost,
    file: &std::path::Path,
    events: &[Event],
) -> anyhow::Result<Reuse> {
    let mut version = Version::new(runtime, file, None)?;
    let mut reuse = Reuse::default();
    if let Some(event) = events.first()
        && let policy @ Reuse::UpTo { .. } = version.of(&event.tenant_id).await?.reuse()
    {
        reuse = policy;
    }
    Ok(reuse)
}

impl Task<'_> {
    /// Asks for one event after the other; `None` when there is nothing to ask.
    async fn measure(
        &self,
        version: &mut Version<'_>,
        asked: &'static str,
        instance: &'static str,
    ) -> anyhow::Result<Option<Measured>> {
        let until = Instant::now() + PATIENCE;
        let warm_up = self.calls.div_ceil(WARM_UP);
        let mut called = Vec::with_capacity(self.calls);
        let mut made = 0;
        for event in self.events.iter().cycle() {
            if made == warm_up + self.calls || Instant::now() >= until {
                break;
            }
            let call = self.call(version, asked, event).await?;
            made += 1;
            // What passes by is no call, and neither are the first, unless they take all the time.
            if call.answer != Answer::PassedBy && (made > warm_up || Instant::now() >= until) {
                called.push(call);
            }
        }
        Ok(Measured::of(asked, instance, &called))
    }

    async fn call(
        &self,
        version: &mut Version<'_>,
        asked: &str,
        event: &Event,
    ) -> anyhow::Result<Called> {
        let plugin = version.of(&event.tenant_id).await?;
        let receivers = self.asking.receivers(event);
        let questions = self.asking.questions(plugin.exports(), &receivers);
        let Some(question) = questions.iter().find(|question| question.asked() == asked) else {
            return Ok(Called::passed_by());
        };
        let content = Content::original(event);
        let asking = self.asking;
        Ok(asking
            .ask(&plugin, event, &receivers, *question, Some(&content))
            .await)
    }
}

impl Measured {
    fn of(asked: &'static str, instance: &'static str, called: &[Called]) -> Option<Self> {
        let memory_bytes = called.iter().map(|call| call.memory).max()?;
        let sorted = |time: fn(&Called) -> Duration| {
            let mut times: Vec<_> = called.iter().map(time).collect();
            times.sort();
            times
        };
        let (wall, cpu) = (sorted(|call| call.wall), sorted(|call| call.cpu));
        let mut errors = called.iter().filter_map(|call| match &call.answer {
            Answer::Failed { error } => Some(error.clone()),
            _ => None,
        });
        let first_error = errors.next();
        Some(Self {
            asked,
            instance,
            calls: called.len(),
            failed: errors.count() + usize::from(first_error.is_some()),
            p50_us: percentile(&wall, 50),
            p99_us: percentile(&wall, 99),
            cpu_p50_us: percentile(&cpu, 50),
            cpu_p99_us: percentile(&cpu, 99),
            memory_bytes,
            first_error,
        })
    }
}

/// The smallest time that so many of a hundred do not exceed, in microseconds.
fn percentile(sorted: &[Duration], share: usize) -> f64 {
    let rank = (sorted.len() * share).div_ceil(100).max(1);
    sorted
        .get(rank - 1)
        .map_or(0.0, |time| (time.as_secs_f64() * 1e7).round() / 10.0)
}

fn print(rows: &[Measured]) {
    let micros = |time: f64| format!("{time:.1} µs");
    let header = [
        "call", "instance", "calls", "failed", "p50", "p99", "cpu p50", "cpu p99", "memory",
    ];
    let rows = rows
        .iter()
        .map(|row| {
            [
                row.asked.to_owned(),
                row.instance.to_owned(),
                row.calls.to_string(),
                row.failed.to_string(),
                micros(row.p50_us),
                micros(row.p99_us),
                micros(row.cpu_p50_us),
                micros(row.cpu_p99_us),
                bytes(row.memory_bytes),
            ]
        })
        .collect();
    output::table(header, rows, "no calls");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        assert!((percentile(&times, 50) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(&times, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&times[..1], 99) - 1.0).abs() < f64::EPSILON);
    }
}
