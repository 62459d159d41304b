//! What transform plugins make of an event: one stage after the other, under each plugin's failure policy.

use http::HeaderValue;
use wasmhook_core::request::Content;
use wasmhook_core::{Context, Endpoint, Error, Event, PluginUse, SafeHeaders};
use wasmhook_runtime::{FailurePolicy, Fault, Request, Stage, Verdict};

use crate::attempt::Trace;
use crate::resolve::{REFUSED, endpoint_view, event_view, micros, retryable, unready, verdict};

/// What a chain of transform plugins made of an event.
pub(crate) enum Transformed {
    Deliver(Content),
    Skip(String),
    Failed { message: String, retryable: bool },
}

/// Has the transforms of a stage run one after the other on what the stage is given.
pub(crate) async fn pass(
    stage: Stage<'_>,
    event: &Event,
    endpoint: &Endpoint,
    given: Content,
    trace: &mut Trace,
) -> Transformed {
    let event_type = event.event_type.as_str();
    if let Some(missing) = unready(stage.unready, event_type, |exports| exports.transform) {
        let words = format!("plugin {} does not serve: {}", missing.name, missing.reason);
        trace.held = missing.loading;
        return under_policy(missing.policy(), &missing.name, event, given, (words, true));
    }
    let mut content = given.clone();
    let mut occurred_at = None;
    for plugin in stage.transforms {
        let occurred_at = occurred_at.get_or_insert_with(|| event.occurred_at.to_string());
        let view = event_view(event, occurred_at, &content.body);
        let version =
            plugin.version_with(|exports| exports.transform, event.id.as_str(), event_type);
        let Some(plugin) = version else {
            plugin.passed_without_transform(&view, &endpoint_view(endpoint));
            continue;
        };
        let called = plugin.transform(&view, &endpoint_view(endpoint)).await;
        if let Err(error) = &called
            && matches!(error.fault, Fault::Exhausted)
        {
            // Not the plugin's failure, so not its policy either: what would have passed through
            // it does not pass it by because the host is busy.
            trace.held = true;
            let message = error.to_string();
            return Transformed::Failed {
                message,
                retryable: true,
            };
        }
        let (cpu, made) = match called {
            Ok(call) => (call.cpu, Ok(call.value)),
            Err(error) => (error.cpu, Err(error)),
        };
        let mut used = |verdict: &str| {
            trace.used.push(PluginUse {
                name: plugin.name().to_owned(),
                digest: plugin.digest().to_string(),
                cpu_us: micros(cpu),
                verdict: Some(verdict.to_owned()),
            });
        };
        let failed = match made {
            Ok(Verdict::Skip(reason)) => {
                used("skip");
                return Transformed::Skip(reason);
            }
            Ok(Verdict::Deliver(request)) => match merge(&content, request) {
                Ok(merged) => {
                    used("deliver");
                    content = merged;
                    continue;
                }
                Err(error) => {
                    used(REFUSED);
                    plugin.refuse_answer(event.id.as_str(), &error.to_string());
                    let words = format!("its request was refused: {error}");
                    (format!("plugin {}: {words}", plugin.name()), true)
                }
            },
            Err(error) => {
                used(verdict(&error.fault));
                (error.to_string(), retryable(&error.fault))
            }
        };
        return under_policy(plugin.policy(), plugin.name(), event, given, failed);
    }
    Transformed::Deliver(content)
}

/// A failed transform under its plugin's failure policy, with what its stage was given: that is the
/// original, for who owns the stage.
fn under_policy(
    policy: FailurePolicy,
    plugin: &str,
    event: &Event,
    given: Content,
    (message, retryable): (String, bool),
) -> Transformed {
    match policy {
        FailurePolicy::Retry => Transformed::Failed { message, retryable },
        FailurePolicy::DeadLetter => Transformed::Failed {
            message,
            retryable: false,
        },
        FailurePolicy::DeliverOriginal => {
            tracing::warn!(
                tenant = %event.tenant_id, event = %event.id, plugin, error = message,
                "the plugin failed; delivering the original"
            );
            Transformed::Deliver(given)
        }
    }
}

/// The request of one more transform laid over what the ones before it made, or the rule that it
/// breaks.
pub fn merge(before: &Content, request: Request) -> Result<Content, Error> {
    let content_type = match request.content_type {
        None => None,
        Some(text) => Some(content_type(&text)?),
    };
    let headers = before.headers.overlaid(&SafeHeaders::new(request.headers)?);
    Ok(Content {
        body: request.body,
        content_type,
        headers,
    })
}

fn content_type(text: &str) -> Result<HeaderValue, Error> {
    let plausible = text.len() <= 255
        && text
            .split_once('/')
            .is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
        && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| plausible)
        .ok_or_else(|| Error::UnsafeHeader(Context::words("the content type is not a media type")))
}
