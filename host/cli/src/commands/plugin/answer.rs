//! What a plugin answers, held to the host's rules, in a form that can be compared and printed.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use wasmhook_core::request::Content;
use wasmhook_core::{EndpointId, EndpointPolicy, Event};
use wasmhook_engine::attempt::merge;
use wasmhook_engine::resolve::{Resolver, event_view};
use wasmhook_runtime::{
    CallResult, Choice, EndpointView, Mode, Plugin, Request, Resolution, Verdict,
};

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The plugin does not see this event: its manifest names other types, or it does not export this.
    PassedBy,
    /// This is to be sent.
    Deliver {
        body: Body,
        content_type: Option<String>,
        /// Those that the plugin added.
        headers: Vec<(String, String)>,
    },
    /// Nothing is to be sent.
    Skip { reason: String },
    /// The event goes to these.
    Resolve {
        mode: &'static str,
        choices: Vec<Chosen>,
    },
    /// It gave no answer, or one that breaks a rule.
    Failed { error: String },
}

/// A body. In JSON a text, or what is not one in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body(pub(super) Bytes);

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Binary {
            base64: String,
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Binary {
                base64: STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

/// An endpoint that a resolver chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Chosen {
    Registered(String),
    New {
        url: String,
        secret: String,
        headers: Vec<(String, String)>,
        ordering_key: Option<String>,
    },
}

/// One call, and what it cost.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Called {
    #[serde(flatten)]
    pub(super) answer: Answer,
    /// Processor time of the guest.
    #[serde(rename = "cpu_us", serialize_with = "micros")]
    pub(super) cpu: Duration,
    /// The whole call on the wall.
    #[serde(rename = "wall_us", serialize_with = "micros")]
    pub(super) wall: Duration,
    /// The most linear memory that the instance had, in bytes.
    #[serde(rename = "memory_bytes")]
    pub(super) memory: usize,
    /// What the guest logged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) log: Vec<String>,
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(super::whole(time.as_micros()))
}

/// Asks what to send to an endpoint.
pub(super) async fn transform(
    plugin: &Plugin,
    event: &Event,
    endpoint: &EndpointView<'_>,
) -> Called {
    if !plugin.exports().transform || !plugin.sees(event.event_type.as_str()) {
        return Called::passed_by();
    }
    let occurred_at = event.occurred_at.to_string();
    let view = event_view(event, &occurred_at, event.payload.bytes());
    let began = Instant::now();
    let call = plugin.transform(&view, endpoint).await;
    Called::of(began.elapsed(), call, |verdict| match verdict {
        Verdict::Skip(reason) => Answer::Skip { reason },
        Verdict::Deliver(request) => deliver(event, request),
    })
}

/// Asks which endpoints an event goes to.
pub(super) async fn resolve(
    plugin: &Plugin,
    event: &Event,
    subscribed: &[EndpointView<'_>],
    policy: EndpointPolicy,
) -> Called {
    if !plugin.exports().resolve || !plugin.sees(event.event_type.as_str()) {
        return Called::passed_by();
    }
    let occurred_at = event.occurred_at.to_string();
    let view = event_view(event, &occurred_at, event.payload.bytes());
    let began = Instant::now();
    let call = plugin.resolve(&view, subscribed).await;
    Called::of(began.elapsed(), call, |resolution| {
        chosen(event, resolution, policy).unwrap_or_else(|error| Answer::Failed {
            error: format!("its answer was refused: {error}"),
        })
    })
}

impl Called {
    fn passed_by() -> Self {
        Self {
            answer: Answer::PassedBy,
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            memory: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn with_log(self, log: Vec<String>) -> Self {
        Self { log, ..self }
    }

    fn of<T>(wall: Duration, call: CallResult<T>, read: impl FnOnce(T) -> Answer) -> Self {
        let (answer, cpu, memory) = match call {
            Ok(call) => (read(call.value), call.cpu, call.memory),
            // The fault alone, for two versions of a plugin may have different names.
            Err(failed) => {
                let error = failed.fault.to_string();
                (Answer::Failed { error }, failed.cpu, failed.memory)
            }
        };
        Self {
            answer,
            cpu,
            wall,
            memory,
            log: Vec::new(),
        }
    }
}

/// A request as the host would send it, or the rule that it breaks.
fn deliver(event: &Event, request: Request) -> Answer {
    match merge(&Content::original(event), request) {
        Ok(content) => Answer::Deliver {
            body: Body(content.body),
            content_type: content
                .content_type
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            headers: content.headers.into(),
        },
        Err(error) => Answer::Failed {
            error: format!("its request was refused: {error}"),
        },
    }
}

fn chosen(
    event: &Event,
    resolution: Resolution,
    policy: EndpointPolicy,
) -> Result<Answer, wasmhook_core::Error> {
    let choices = resolution.choices.into_iter().map(|choice| match choice {
        Choice::Registered(id) => Ok(Chosen::Registered(EndpointId::new(id)?.to_string())),
        Choice::New(made) => {
            let ordering_key = made.ordering_key.clone();
            let (resolved, _) = Resolver::checked(policy, event, made)?;
            Ok(Chosen::New {
                url: resolved.url.as_url().to_string(),
                secret: resolved.secret.to_string(),
                headers: resolved.headers.into(),
                ordering_key,
            })
        }
    });
    Ok(Answer::Resolve {
        mode: match resolution.mode {
            Mode::Add => "add",
            Mode::Replace => "replace",
        },
        choices: choices.collect::<Result<_, wasmhook_core::Error>>()?,
    })
}
