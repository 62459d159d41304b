//! `POST /v1/events`.
//!
//! The body is one event, an array of events (`application/json`), or one event per line
//! (`application/x-ndjson`). An event is
//! `{"id","tenant","type","payload","occurred_at"?,"deliver_at"?,"ordering_key"?}`.
//!
//! | answer | when |
//! |---|---|
//! | 202 | every event is durable, or was already |
//! | 207 | some were refused; `results` says which, in order; the others are durable |
//! | 422 | all were refused |
//! | 400 | the body as a whole cannot be read |
//! | 429 | the queue is full; push again after the seconds in `Retry-After` |
//! | 503 | the store does not answer; push again, which makes no second delivery |

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use wasmhook_core::{Error, EventDraft};
use wasmhook_engine::{Source, Verdict};

use crate::Api;

/// The most events in one request.
pub const MAX_EVENTS: usize = 1000;

/// What became of one event of a request.
#[derive(Serialize)]
struct Answer {
    /// `enqueued`, `duplicate` or `rejected`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
struct Failure {
    code: String,
    message: String,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Answer>,
}

#[derive(Serialize)]
pub(crate) struct Refusal {
    error: Failure,
}

/// An error as the API words it.
pub(crate) fn failure(
    status: StatusCode,
    code: &str,
    message: &str,
) -> (StatusCode, Json<Refusal>) {
    let error = Failure {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    (status, Json(Refusal { error }))
}

/// The drafts of a body, and whether it was a batch.
type Drafts = (Vec<Result<EventDraft, Error>>, bool);

/// When to come back while the queue is full, in seconds: it takes some to shrink.
const RELIEF: HeaderValue = HeaderValue::from_static("5");
/// When to come back while the store does not answer, in seconds.
const RECOVERY: HeaderValue = HeaderValue::from_static("1");

/// Nothing was taken in; the producer may push the same again later.
fn later(status: StatusCode, code: &str, words: &str, after: HeaderValue) -> Response {
    let mut response = failure(status, code, words).into_response();
    response.headers_mut().insert(RETRY_AFTER, after);
    response
}

pub(crate) async fn post(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(full) = api.pressure.full() {
        let words = format!("the queue is full: {full}; push the events again later");
        return later(StatusCode::TOO_MANY_REQUESTS, "queue_full", &words, RELIEF);
    }
    let (drafts, batch) = match read(&headers, &body) {
        Ok(drafts) => drafts,
        Err((code, message)) => {
            return failure(StatusCode::BAD_REQUEST, code, &message).into_response();
        }
    };
    let verdicts = match api.intake.accept(Source::Http, drafts).await.whole() {
        Ok(verdicts) => verdicts,
        Err(error) => {
            tracing::warn!(%error, "events could not be accepted");
            let words = "the store does not answer; push the events again";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return later(status, "store_unavailable", words, RECOVERY);
        }
    };
    let refused = verdicts
        .iter()
        .filter(|v| matches!(v, Verdict::Rejected { .. }))
        .count();
    let status = match refused {
        0 => StatusCode::ACCEPTED,
        all if all == verdicts.len() => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::MULTI_STATUS,
    };
    let mut results: Vec<_> = verdicts.into_iter().map(answer).collect();
    match results.pop() {
        Some(only) if !batch => (status, Json(only)).into_response(),
        last => {
            results.extend(last);
            (status, Json(Results { results })).into_response()
        }
    }
}

fn answer(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Enqueued { deliveries } => Answer {
            status: "enqueued",
            deliveries: Some(deliveries),
            error: None,
        },
        Verdict::Duplicate => Answer {
            status: "duplicate",
            deliveries: None,
            error: None,
        },
        Verdict::Rejected { code, reason } => Answer {
            status: "rejected",
            deliveries: None,
            error: Some(Failure {
                code: code.to_owned(),
                message: reason,
            }),
        },
    }
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Drafts, (&'static str, String)> {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
    let (drafts, batch): Drafts = match media.as_deref() {
        Some("application/x-ndjson" | "application/jsonl") => {
            let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            (
                lines
                    .filter(|line| !line.is_empty())
                    .map(EventDraft::from_json)
                    .collect(),
                true,
            )
        }
        None | Some("application/json") if body.trim_ascii_start().first() == Some(&b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_slice(body).map_err(|error| ("invalid_json", position(&error)))?;
            (
                items
                    .into_iter()
                    .map(|item| EventDraft::from_json(item.get().as_bytes()))
                    .collect(),
                true,
            )
        }
        None | Some("application/json") => (vec![EventDraft::from_json(body)], false),
        Some(_) => {
            return Err((
                "unsupported_media_type",
                "expected the content type application/json or application/x-ndjson".to_owned(),
            ));
        }
    };
    match drafts.len() {
        0 => Err(("empty", "expected at least one event".to_owned())),
        1..=MAX_EVENTS => Ok((drafts, batch)),
        more => Err((
            "too_many_events",
            format!("expected at most {MAX_EVENTS} events, found {more}"),
        )),
    }
}

fn position(error: &serde_json::Error) -> String {
    format!(
        "expected a JSON array of events, which ends being one at line {} column {}",
        error.line(),
        error.column()
    )
}
