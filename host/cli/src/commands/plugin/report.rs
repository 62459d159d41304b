//! What `plugin test` found, for people and for programs.

use std::path::Path;

use serde::Serialize;
use wasmhook_core::Event;
use wasmhook_runtime::Exports;

use super::answer::{Answer, Called, Chosen};
use super::question::{Asking, Question};
use super::{bytes, difference, whole};
use crate::exit::{Coded, Exit};
use crate::output;

/// All that was tried.
#[derive(Default, Serialize)]
pub(super) struct Report {
    events: Vec<TriedEvent>,
    summary: Summary,
}

/// What the plugin did with one event.
#[derive(Serialize)]
pub(super) struct TriedEvent {
    pub(super) id: String,
    pub(super) tenant: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) calls: Vec<Tried>,
}

/// One question, and the answer.
#[derive(Serialize)]
pub(super) struct Tried {
    /// The interface.
    asked: &'static str,
    /// Where the event is on its way to, unless that is what is asked.
    endpoint: Option<String>,
    /// The status of the answer that is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip)]
    has_made_up_key: bool,
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
    /// What is exported and was not asked, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_asked: Vec<String>,
    /// Whether signatures are by a key that nobody else has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    made_up_key: bool,
    /// The interfaces that were asked.
    #[serde(skip)]
    asked: Vec<&'static str>,
}

impl Report {
    /// Counts an event; it is printed at once, or kept for the whole in JSON.
    pub(super) fn add(&mut self, tried: TriedEvent, json: bool) {
        self.summary.count(&tried);
        if json {
            self.events.push(tried);
        } else {
            tried.print();
        }
    }

    /// Says what of all that is exported was not asked, once all events were tried.
    pub(super) fn finish(&mut self, asking: &Asking, exports: Exports) {
        self.summary.not_asked = asking.not_asked(exports, &self.summary.asked);
    }

    /// Prints the summary, and fails if calls did. With another version only what differs from it counts,
    /// for what both fail at is not new.
    pub(super) fn conclude(&self, against: Option<&Path>, json: bool) -> anyhow::Result<()> {
        if json {
            output::json(self)?;
        } else {
            self.summary.print(against);
        }
        self.summary.conclude(against.is_some())
    }
}

impl Tried {
    pub(super) fn new(
        question: Question<'_>,
        event: &Event,
        called: Called,
        against: Option<Called>,
    ) -> Self {
        let asked = question.asked();
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
            endpoint: question.endpoint(),
            status: question.status(),
            has_made_up_key: question.has_made_up_key(),
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
            if !self.asked.contains(&tried.asked) {
                self.asked.push(tried.asked);
            }
            self.made_up_key |= tried.has_made_up_key;
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
        if self.made_up_key {
            output::line(
                "signed with a key that was made up for this run; --secret-file gives another",
            );
        }
        self.not_asked.iter().for_each(output::line);
    }

    fn conclude(&self, compares: bool) -> anyhow::Result<()> {
        if self.calls == 0
            && let Some(reason) = self.not_asked.first()
        {
            return Err(Coded::new(Exit::Failure, reason.clone()));
        }
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
            format!("{count} of {} {words}", output::count(of, "call")),
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
        let mut asked = self.asked.to_owned();
        if let Some(status) = self.status {
            asked = format!("{asked} {status}");
        }
        if let Some(endpoint) = &self.endpoint {
            asked = format!("{asked} for {endpoint}");
        }
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
            output::line(format!("    {line}"));
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

/// The headers that a plugin added, its media type among them, a line each.
fn headers(answer: &Answer) -> Vec<String> {
    let (content_type, headers) = match answer {
        Answer::Deliver {
            content_type,
            headers,
            ..
        } => (content_type.as_ref(), headers),
        Answer::Sign { headers } => (None, headers),
        _ => return Vec::new(),
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
        Answer::Deliver { body, headers, .. } => {
            format!("deliver {}{}", bytes(body.0.len()), with(headers))
        }
        Answer::Sign { headers } => format!("sign{}", with(headers)),
        Answer::Judge {
            judgement,
            retry_after_s,
            reason,
            otherwise,
        } => {
            let mut words = (*judgement).to_owned();
            if let Some(seconds) = retry_after_s {
                words = format!("{words} after {seconds} s");
            }
            if let Some(reason) = reason {
                words = format!("{words}: {reason}");
            }
            format!("{words} (without it: {otherwise})")
        }
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

fn with(headers: &[(String, String)]) -> String {
    match headers.len() {
        0 => String::new(),
        1 => " with 1 header".to_owned(),
        count => format!(" with {count} headers"),
    }
}
