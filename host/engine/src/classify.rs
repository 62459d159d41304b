//! What a tenant's classifiers make of a receiver's answer.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Endpoint, Event, Judgement, PluginUse};
use wasmhook_delivery::Answer;
use wasmhook_runtime::{
    self as runtime, CallResult, Classification, EventView, Plugin, ResponseView, TenantPlugins,
};

use crate::resolve::{endpoint_view, event_view, micros, unready, verdict};

/// The verdict of a call that the attempt's own deadline cut short.
const OUT_OF_TIME: &str = "deadline";

/// Headers of an answer that a classifier is shown.
const HEADERS: usize = 64;
/// Bytes of the value of one of them.
const HEADER_BYTES: usize = 8 << 10;
/// Kept of an attempt's time, so that what the receiver answered is recorded however long its
/// classifiers take.
const MARGIN: Duration = Duration::from_millis(250);

/// Whether somebody will want to see answers to this event: a classifier that serves, or one that ought
/// to and does not.
pub(crate) fn applies(plugins: &TenantPlugins, event: &Event) -> bool {
    let event_type = event.event_type.as_str();
    let sees = |plugin: &Arc<Plugin>| plugin.version_for(event.id.as_str()).sees(event_type);
    plugins.classifiers.iter().any(sees)
        || unready(&plugins.unready, event_type, |exports| exports.classify)
            .is_some_and(|plugin| plugin.exports.is_some())
}

/// Has the classifiers judge the answer, one after the other. One that fails has nothing to say; the
/// attempt tells of it. Ends before `deadline`, by which the attempt must have ended.
pub(crate) async fn judge(
    plugins: &TenantPlugins,
    event: &Event,
    endpoint: &Endpoint,
    mut attempt: Attempt,
    answer: &Answer,
    deadline: Instant,
    used: &mut Vec<PluginUse>,
) -> Attempt {
    let event_type = event.event_type.as_str();
    let fell_back = |attempt: &mut Attempt, error: &dyn std::fmt::Display| {
        attempt.add_words(&format!("{error}; the answer is judged without it"));
    };
    if let Some(missing) = unready(&plugins.unready, event_type, |exports| exports.classify) {
        let words = format!("plugin {} does not serve: {}", missing.name, missing.reason);
        fell_back(&mut attempt, &words);
    }
    let latest = deadline.checked_sub(MARGIN).unwrap_or(deadline);
    for plugin in &plugins.classifiers {
        let version =
            plugin.version_with(|exports| exports.classify, event.id.as_str(), event_type);
        let Some(plugin) = &version else {
            let (shown, so_far) = (Shown::of(event, answer), to_runtime(attempt.judgement()));
            let (event, response) = (shown.event(), shown.response());
            plugin.passed_without_classify(&event, &endpoint_view(endpoint), &response, so_far);
            continue;
        };
        let called = ask(plugin, event, endpoint, answer, attempt.judgement());
        let called = timeout_at(latest, called).await;
        let mut note = |cpu, verdict: &str| {
            used.push(PluginUse {
                name: plugin.name().to_owned(),
                digest: plugin.digest().to_string(),
                cpu_us: micros(cpu),
                verdict: Some(verdict.to_owned()),
            });
        };
        match called {
            Ok(Ok(call)) => {
                let judged = call.value;
                note(call.cpu, word(judged.judgement));
                attempt = attempt.judged(
                    judgement(judged.judgement),
                    plugin.name(),
                    judged.reason.as_deref(),
                );
            }
            Ok(Err(error)) => {
                note(error.cpu, verdict(&error.fault));
                fell_back(&mut attempt, &error);
            }
            Err(_) => {
                note(Duration::ZERO, OUT_OF_TIME);
                let words = format!("plugin {}: the attempt has no time left", plugin.name());
                fell_back(&mut attempt, &words);
            }
        }
    }
    attempt
}

/// Asks a plugin what it takes an answer for, which is taken for `so_far` without it.
pub async fn ask(
    plugin: &Plugin,
    event: &Event,
    endpoint: &Endpoint,
    answer: &Answer,
    so_far: Judgement,
) -> CallResult<Classification> {
    let shown = Shown::of(event, answer);
    let (event, response) = (shown.event(), shown.response());
    plugin
        .classify(
            &event,
            &endpoint_view(endpoint),
            &response,
            to_runtime(so_far),
        )
        .await
}

/// What a classifier is shown.
struct Shown<'a> {
    event: &'a Event,
    occurred_at: String,
    answer: &'a Answer,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Shown<'a> {
    fn of(event: &'a Event, answer: &'a Answer) -> Self {
        Self {
            event,
            occurred_at: event.occurred_at.to_string(),
            answer,
            headers: shown(&answer.headers),
        }
    }

    fn event(&self) -> EventView<'_> {
        event_view(self.event, &self.occurred_at, self.event.payload.bytes())
    }

    fn response(&self) -> ResponseView<'_> {
        ResponseView {
            status: self.answer.status,
            headers: &self.headers,
            body: &self.answer.body,
            complete: self.answer.complete,
        }
    }
}
fn shown(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let text = std::str::from_utf8(value.as_bytes()).ok()?;
            (text.len() <= HEADER_BYTES).then_some((name.as_str(), text))
        })
        .take(HEADERS)
        .collect()
}

fn to_runtime(judgement: Judgement) -> runtime::Judgement {
    match judgement {
        Judgement::Accepted => runtime::Judgement::Accepted,
        Judgement::Retry(wait) => runtime::Judgement::Retry(
            wait.map(|wait| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX)),
        ),
        Judgement::GiveUp => runtime::Judgement::GiveUp,
    }
}

/// A plugin's judgement in the terms of the domain.
pub fn judgement(judgement: runtime::Judgement) -> Judgement {
    match judgement {
        runtime::Judgement::Accepted => Judgement::Accepted,
        runtime::Judgement::Retry(seconds) => {
            Judgement::Retry(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        }
        runtime::Judgement::GiveUp => Judgement::GiveUp,
    }
}

/// The verdict as attempts record it.
fn word(judgement: runtime::Judgement) -> &'static str {
    match judgement {
        runtime::Judgement::Accepted => "accepted",
        runtime::Judgement::Retry(_) => "retry",
        runtime::Judgement::GiveUp => "give-up",
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_classifier_sees_a_bounded_number_of_bounded_headers() {
        let mut headers = HeaderMap::new();
        let insert = |headers: &mut HeaderMap, name: &str, value: HeaderValue| {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        };
        insert(
            &mut headers,
            "x-odd",
            HeaderValue::from_bytes(b"\xff").unwrap(),
        );
        let long = "x".repeat(HEADER_BYTES + 1);
        insert(
            &mut headers,
            "x-long",
            HeaderValue::from_str(&long).unwrap(),
        );
        assert!(shown(&headers).is_empty());
        for n in 0..100 {
            insert(
                &mut headers,
                &format!("x-{n}"),
                HeaderValue::from_static("v"),
            );
        }
        assert_eq!(shown(&headers).len(), HEADERS);
    }
}
