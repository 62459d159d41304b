//! `wasmhook plugin test`

use wasmhook_core::Event;
use wasmhook_core::request::Content;
use wasmhook_runtime::{Exports, Plugin};

use super::answer::Called;
use super::endpoints::Receiver;
use super::guest_lines::GuestLines;
use super::input::{self, Version};
use super::question::{Asking, Question};
use super::report::{Report, Tried, TriedEvent};
use super::trial::Trial;
use crate::args::TestPlugin;
use crate::config::Config;

/// Runs events through a plugin, and through another version to compare with.
pub(super) async fn test(config: &Config, args: TestPlugin, json: bool) -> anyhow::Result<()> {
    let events = input::events(config, &args.events)?;
    let asking = Asking::new(config, &args.receivers, &args.file)?;
    let lines = GuestLines::capture();
    let trial = || {
        let mut config = config.clone();
        config.plugins.host_log = true;
        Trial::new(&config)
    };
    let first = trial()?;
    let mut version = Version::new(first.host(), &args.file, None)?;
    // Each has what it keeps to itself, or the second would find what the first has left.
    let second = args.against.as_ref().map(|_| trial()).transpose()?;
    let mut other = match (&args.against, &second) {
        (Some(file), Some(trial)) => Some(Version::new(trial.host(), file, None)?),
        _ => None,
    };
    let mut report = Report::default();
    let mut all = Exports::default();
    for event in &events {
        let plugin = version.of(&event.tenant_id).await?;
        let against = match &mut other {
            Some(version) => Some(version.of(&event.tenant_id).await?),
            None => None,
        };
        let exports = against.as_ref().map_or(plugin.exports(), |other| {
            plugin.exports().or(other.exports())
        });
        all = all.or(exports);
        let receivers = asking.receivers(event);
        let questions = asking.questions(exports, &receivers);
        let asked = Asked {
            asking: &asking,
            event,
            receivers: &receivers,
            questions: &questions,
            lines: &lines,
        };
        let called = asked.of(&plugin).await;
        let compared: Vec<Option<Called>> = match &against {
            Some(other) => asked.of(other).await.into_iter().map(Some).collect(),
            None => vec![None; called.len()],
        };
        let tried = TriedEvent {
            id: event.id.to_string(),
            tenant: event.tenant_id.to_string(),
            event_type: event.event_type.to_string(),
            calls: questions
                .iter()
                .zip(called)
                .zip(compared)
                .map(|((question, called), against)| Tried::new(*question, event, called, against))
                .collect(),
        };
        report.add(tried, json);
    }
    report.finish(&asking, all);
    report.conclude(args.against.as_deref(), json)
}

/// The questions about one event.
struct Asked<'a> {
    asking: &'a Asking,
    event: &'a Event,
    receivers: &'a [Receiver],
    questions: &'a [Question<'a>],
    lines: &'a GuestLines,
}

impl Asked<'_> {
    /// Asks one version all of them.
    async fn of(&self, plugin: &Plugin) -> Vec<Called> {
        let mut called = Vec::with_capacity(self.questions.len());
        let mut content = Some(Content::original(self.event));
        for question in self.questions {
            let call = self
                .asking
                .ask(
                    plugin,
                    self.event,
                    self.receivers,
                    *question,
                    content.as_ref(),
                )
                .await
                .with_log(self.lines.take());
            if let Question::Transform(_) = question {
                content = call.answer.content(self.event);
            }
            called.push(call);
        }
        called
    }
}
