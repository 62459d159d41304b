//! What a plugin answers, held to the host's rules, in a form that can be compared and printed.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use wasmhook_core::delivery::default_id;
use wasmhook_core::request::Content;
use wasmhook_core::{
    Endpoint, EndpointId, EndpointPolicy, Event, Judgement, RequestBuilder, SafeHeaders,
    SignatureHeaders,
};
use wasmhook_delivery::Answer as ReceiverAnswer;
use wasmhook_engine::classify;
use wasmhook_engine::resolve::{Resolver, event_view};
use wasmhook_engine::sign::Signing;
use wasmhook_engine::transform::merge;
use wasmhook_runtime::{
    CallResult, Choice, EndpointView, Mode, Plugin, Request, Resolution, Verdict,
};

use super::endpoints::Receiver;

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The plugin does not see this event: its manifest names other types, it does not export this, or
    /// there is nothing to sign.
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
    /// The request is sent with these headers besides.
    Sign { headers: Vec<(String, String)> },
    /// What a receiver answered is taken for this.
    Judge {
        judgement: &'static str,
        /// Where it is tried again: after so long, if that is named.
        retry_after_s: Option<u64>,
        reason: Option<String>,
        /// What it is taken for without the plugin.
        otherwise: &'static str,
    },
    /// It gave no answer, or one that breaks a rule.
    Failed { error: String },
}

impl Answer {
    /// What is sent after this answer of a transform; `None` when that is nothing.
    pub(super) fn content(&self, event: &Event) -> Option<Content> {
        match self {
            Self::PassedBy => Some(Content::original(event)),
            Self::Deliver {
                body,
                content_type,
                headers,
            } => Some(Content {
                body: body.0.clone(),
                content_type: content_type
                    .as_deref()
                    .and_then(|text| HeaderValue::from_str(text).ok()),
                headers: SafeHeaders::new(headers.iter().map(|(name, value)| (name, value)))
                    .ok()?,
            }),
            _ => None,
        }
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
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

/// Asks for the headers that sign a request.
pub(super) async fn sign(
    plugin: &Plugin,
    event: &Event,
    receiver: &Receiver,
    content: &Content,
    requests: &RequestBuilder,
    at: Timestamp,
) -> Called {
    if !plugin.exports().sign {
        return Called::passed_by();
    }
    let endpoint = &receiver.endpoint;
    let secrets = match &receiver.secrets {
        Ok(secrets) => secrets,
        Err(error) => return Called::failed(error),
    };
    let request = match requests.prepare(event, endpoint, content) {
        Ok(request) => request,
        Err(error) => return Called::failed(error),
    };
    let signing = Signing {
        delivery: &default_id(&event.tenant_id, &event.id, &endpoint.id),
        event,
        endpoint,
        secrets,
        at,
    };
    let began = Instant::now();
    let call = signing.ask(plugin, &request).await;
    Called::of(
        began.elapsed(),
        call,
        |headers| match SignatureHeaders::new(headers) {
            Ok(headers) => Answer::Sign {
                headers: headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), lossy(value)))
                    .collect(),
            },
            Err(error) => Answer::Failed {
                error: format!("its signature was refused: {error}"),
            },
        },
    )
}

/// Asks what a receiver's answer is to be taken for.
pub(super) async fn classify(
    plugin: &Plugin,
    event: &Event,
    endpoint: &Endpoint,
    answered: &ReceiverAnswer,
) -> Called {
    if !plugin.exports().classify || !plugin.sees(event.event_type.as_str()) {
        return Called::passed_by();
    }
    let attempt = answered.attempt(1, Timestamp::now(), Duration::ZERO);
    let otherwise = attempt.judgement();
    let began = Instant::now();
    let call = classify::ask(plugin, event, endpoint, answered, otherwise).await;
    Called::of(began.elapsed(), call, |judged| {
        let judgement = classify::judgement(judged.judgement);
        Answer::Judge {
            judgement: word(judgement),
            retry_after_s: match judgement {
                Judgement::Retry(wait) => wait.map(|wait| wait.as_secs()),
                _ => None,
            },
            reason: judged.reason,
            otherwise: word(otherwise),
        }
    })
}

/// A judgement in a word.
fn word(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Accepted => "accepted",
        Judgement::Retry(_) => "retry",
        Judgement::GiveUp => "give-up",
    }
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
    pub(super) fn passed_by() -> Self {
        Self {
            answer: Answer::PassedBy,
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            memory: 0,
            log: Vec::new(),
        }
    }

    /// What was not even asked, for this reason.
    fn failed(error: impl std::fmt::Display) -> Self {
        Self {
            answer: Answer::Failed {
                error: error.to_string(),
            },
            ..Self::passed_by()
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
            content_type: content.content_type.as_ref().map(lossy),
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
