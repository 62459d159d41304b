//! `wasmhook plugin test`

use std::path::Path;

use serde::Serialize;
use wasmhook_core::Event;

use super::answer::{self, Answer, Called, Chosen};
use super::guest_lines::GuestLines;
use super::input::{self, Endpoints, Version};
use super::trial::Trial;
use super::{bytes, difference, whole};
use crate::args::TestPlugin;
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::{host, output};

/// All that was tried.
#[derive(Serialize)]
struct Report {
    events: Vec<TriedEvent>,
    summary: Summary,
}

/// What the plugin did with one event.
#[derive(Serialize)]
struct TriedEvent {
    id: String,
    tenant: String,
    #[serde(rename = "type")]
    event_type: String,
    calls: Vec<Tried>,
}

/// One question, and the answer.
#[derive(Serialize)]
struct Tried {
    /// `resolve`, or `transform`.
    asked: &'static str,
    /// Where the event is on its way to, for a transform.
    endpoint: Option<String>,
    #[serde(flatten)]
    called: Called,
    /// From the payload, or with `--against` from the other version's body, to this body.
    difference: Option<String>,
    /// What the other version answered.
    against: Option<Against>,
}

#[derive(Serialize)]
struct Against {
    same: bool,
    #[serde(flatten)]
    called: Called,
}

#[derive(Default, Serialize)]
struct Summary {
    events: usize,
    /// Events that the plugin does not see.
    passed_by: usize,
    calls: usize,
    failed: usize,
    /// Calls whose answers the two versions disagree on.
    differ: usize,
    cpu_us_max: u64,
    memory_bytes_max: usize,
}

/// Runs events through a plugin, and through another version to compare with.
pub(super) async fn test(config: &Config, args: TestPlugin, json: bool) -> anyhow::Result<()> {
    let events = input::events(config, &args.events)?;
    let endpoints = Endpoints::new(config, args.endpoints)?;
    let lines = GuestLines::capture();
    let trial = || {
        let mut config = config.clone();
        config.plugins.host_log = true;
        Trial::new(&config)
    };
    let tried = trial()?;
    let mut version = Version::new(tried.host(), &args.file, None)?;
    // Each has what it keeps to itself, or the second would find what the first has left.
    let compared = args.against.as_ref().map(|_| trial()).transpose()?;
    let mut other = match (&args.against, &compared) {
        (Some(file), Some(trial)) => Some(Version::new(trial.host(), file, None)?),
        _ => None,
    };
    let policy = host::policy(config);
    let mut report = Report {
        events: Vec::new(),
        summary: Summary::default(),
    };
    for event in &events {
        let plugin = version.of(&event.tenant_id).await?;
        let against = match &mut other {
            Some(version) => Some(version.of(&event.tenant_id).await?),
            None => None,
        };
        let receivers = endpoints.of(event);
        let views = receivers.views();
        let exports = |ask: fn(wasmhook_runtime::Exports) -> bool| {
            ask(plugin.exports()) || against.as_ref().is_some_and(|other| ask(other.exports()))
        };
        let mut calls = Vec::new();
        if exports(|exports| exports.resolve) {
            let ask = async |plugin| {
                let called = answer::resolve(plugin, event, &views, policy).await;
                called.with_log(lines.take())
            };
            let called = ask(&plugin).await;
            let against = match &against {
                Some(other) => Some(ask(other).await),
                None => None,
            };
            calls.push(Tried::new("resolve", None, event, called, against));
        }
        if exports(|exports| exports.transform) {
            for view in &views {
                let ask = async |plugin| {
                    let called = answer::transform(plugin, event, view).await;
                    called.with_log(lines.take())
                };
                let called = ask(&plugin).await;
                let against = match &against {
                    Some(other) => Some(ask(other).await),
                    None => None,
                };
                let endpoint = Some(view.id.to_owned());
                calls.push(Tried::new("transform", endpoint, event, called, against));
            }
        }
        let tried = TriedEvent {
            id: event.id.to_string(),
            tenant: event.tenant_id.to_string(),
            event_type: event.event_type.to_string(),
            calls,
        };
        report.summary.count(&tried);
        if json {
            report.events.push(tried);
        } else {
            tried.print();
        }
    }
    if json {
        output::json(&report)?;
    } else {
        report.summary.print(args.against.as_deref());
    }
    report.summary.conclude(args.against.is_some())
}

impl Tried {
    fn new(
        asked: &'static str,
        endpoint: Option<String>,
        event: &Event,
        called: Called,
        against: Option<Called>,
    ) -> Self {
        let payload = event.payload.bytes();
        let body = |answer: &Answer| match answer {
            Answer::Deliver { body, .. } => Some(body.0.clone()),
            Answer::PassedBy if asked == "transform" => Some(payload.clone()),
            _ => None,
        };
        let before = match &against {
            Some(other) => body(&other.answer),
            None => Some(payload.clone()),
        };
        let difference = before
            .zip(body(&called.answer))
            .and_then(|(before, after)| difference::between(&before, &after));
        Self {
            asked,
            endpoint,
            difference,
            against: against.map(|other| Against {
                same: other.answer == called.answer,
                called: other,
            }),
            called,
        }
    }
}

impl Summary {
    fn count(&mut self, tried: &TriedEvent) {
        self.events += 1;
        let passes = |tried: &Tried| tried.called.answer == Answer::PassedBy;
        self.passed_by += usize::from(tried.calls.iter().all(passes));
        for tried in &tried.calls {
            let is_asked = |answer: &Answer| *answer != Answer::PassedBy;
            let other = tried.against.as_ref();
            self.calls += usize::from(
                is_asked(&tried.called.answer)
                    || other.is_some_and(|other| is_asked(&other.called.answer)),
            );
            let called = &tried.called;
            self.failed += usize::from(matches!(called.answer, Answer::Failed { .. }));
            self.differ += usize::from(tried.against.as_ref().is_some_and(|other| !other.same));
            self.cpu_us_max = self.cpu_us_max.max(whole(called.cpu.as_micros()));
            self.memory_bytes_max = self.memory_bytes_max.max(called.memory);
        }
    }

    fn print(&self, against: Option<&Path>) {
        let mut words = format!(
            "events: {}, passing it by: {}, calls: {}, failed: {}",
            self.events, self.passed_by, self.calls, self.failed
        );
        if let Some(other) = against {
            words = format!("{words}, other than {}'s: {}", other.display(), self.differ);
        }
        output::line(format!(
            "{words}\nat most {} µs of processor time and {} of memory in one call",
            self.cpu_us_max,
            bytes(self.memory_bytes_max)
        ));
    }

    /// With another version only what differs from it counts, for what both fail at is not new.
    fn conclude(&self, compares: bool) -> anyhow::Result<()> {
        let (count, words) = if compares {
            (self.differ, "differ from the other version's")
        } else {
            (self.failed, "failed")
        };
        if count == 0 {
            return Ok(());
        }
        let of = self.calls;
        Err(Coded::new(
            Exit::Failure,
            format!("{count} of {of} calls {words}"),
        ))
    }
}

impl TriedEvent {
    fn print(&self) {
        output::line(format!("{}  {}  {}", self.id, self.tenant, self.event_type));
        for tried in &self.calls {
            tried.print();
        }
        output::line("");
    }
}

impl Tried {
    fn print(&self) {
        let asked = match &self.endpoint {
            Some(endpoint) => format!("{} for {endpoint}", self.asked),
            None => self.asked.to_owned(),
        };
        let called = &self.called;
        let cost = if called.answer == Answer::PassedBy {
            String::new()
        } else {
            format!(
                "  ({} µs, {})",
                called.cpu.as_micros(),
                bytes(called.memory)
            )
        };
        match &self.against {
            None => output::line(format!("  {asked}: {}{cost}", told(&called.answer))),
            Some(other) if other.same => {
                output::line(format!(
                    "  {asked}: the same, {}{cost}",
                    told(&called.answer)
                ));
                return;
            }
            Some(other) => {
                output::line(format!("  {asked}: DIFFERS{cost}"));
                output::line(format!("    before: {}", told(&other.called.answer)));
                output::line(format!("    now:    {}", told(&called.answer)));
            }
        }
        for line in &called.log {
            output::line(format!("    log {line}"));
        }
        for line in self.difference.iter().flat_map(|text| text.lines()) {
            output::line(format!("    {}", printable(line)));
        }
        let before = self
            .against
            .as_ref()
            .map(|other| headers(&other.called.answer));
        let now = headers(&called.answer);
        for header in before
            .iter()
            .flatten()
            .filter(|header| !now.contains(header))
        {
            output::line(format!("    -{header}"));
        }
        for header in &now {
            match &before {
                None => output::line(format!("    {header}")),
                Some(before) if !before.contains(header) => output::line(format!("    +{header}")),
                Some(_) => {}
            }
        }
    }
}

/// A line without what a terminal would act upon.
fn printable(line: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    line.chars().map(harmless).collect()
}

/// The headers that a plugin added, its media type among them, a line each.
fn headers(answer: &Answer) -> Vec<String> {
    let Answer::Deliver {
        content_type,
        headers,
        ..
    } = answer
    else {
        return Vec::new();
    };
    let content_type = content_type
        .iter()
        .map(|value| format!("content-type: {value}"));
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"));
    content_type.chain(headers).collect()
}

/// An answer in one line.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::PassedBy => "passes it by".to_owned(),
        Answer::Deliver { body, headers, .. } => format!(
            "deliver {}{}",
            bytes(body.0.len()),
            match headers.len() {
                0 => String::new(),
                1 => " with 1 header".to_owned(),
                count => format!(" with {count} headers"),
            }
        ),
        Answer::Skip { reason } => format!("skip: {reason}"),
        Answer::Failed { error } => format!("FAILED: {error}"),
        Answer::Resolve { mode, choices } => {
            let choices: Vec<_> = choices
                .iter()
                .map(|choice| match choice {
                    Chosen::Registered(id) => id.clone(),
                    Chosen::New {
                        url,
                        secret,
                        headers,
                        ordering_key,
                    } => {
                        let mut words = format!("{url} signed with {secret}");
                        for (name, value) in headers {
                            words = format!("{words}, {name}: {value}");
                        }
                        if let Some(key) = ordering_key {
                            words = format!("{words}, in order of {key}");
                        }
                        words
                    }
                })
                .collect();
            match (*mode, &choices[..]) {
                ("add", []) => "the endpoints that subscribe".to_owned(),
                ("add", _) => format!("the endpoints that subscribe, and {}", choices.join("; ")),
                (_, []) => "no endpoint".to_owned(),
                _ => choices.join("; "),
            }
        }
    }
}
