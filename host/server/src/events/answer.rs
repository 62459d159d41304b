//! What became of the events of a request, in the words of HTTP.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use wasmhook_engine::{Taken, Verdict};

use super::telling::Telling;

/// When to come back while the queue is full, in seconds: it takes some to shrink.
const RELIEF: HeaderValue = HeaderValue::from_static("5");
/// When to come back while the store does not answer, in seconds.
const RECOVERY: HeaderValue = HeaderValue::from_static("1");

/// The code of what failed for want of the store.
const UNAVAILABLE: &str = "store_unavailable";

#[derive(Serialize)]
struct Failure {
    code: String,
    message: String,
}

impl Failure {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Refusal {
    error: Failure,
}

/// What became of one event of a request.
#[derive(Serialize)]
struct Answer {
    /// `enqueued`, `duplicate`, `rejected` or `unavailable`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
struct Results {
    /// Why not every event has come to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    results: Vec<Answer>,
}

/// An error as the API words it.
pub(crate) fn failure(
    status: StatusCode,
    code: &str,
    message: &str,
) -> (StatusCode, Json<Refusal>) {
    let error = Failure::new(code, message);
    (status, Json(Refusal { error }))
}

/// Nothing is taken in, for so much waits.
pub(super) fn full(full: &str) -> Response {
    let words = format!("the queue is full: {full}; push the events again later");
    let refusal = failure(StatusCode::TOO_MANY_REQUESTS, "queue_full", &words);
    again_after(RELIEF, refusal.into_response())
}

/// The store did not answer in time, so nothing is known.
pub(super) fn silent(patience: Duration, telling: &Telling) -> Response {
    if let Some(requests_untold) = telling.due(Instant::now()) {
        tracing::warn!(
            requests_untold,
            "events could not be taken in within {patience:?}, for the store does not answer"
        );
    }
    away()
}

fn away() -> Response {
    let words = "the store does not answer; push the events again";
    let refusal = failure(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, words);
    again_after(RECOVERY, refusal.into_response())
}

/// What became of a body's events, of which there is at least one.
pub(super) fn taken(taken: Taken, batch: bool, telling: &Telling) -> Response {
    let Taken { verdicts, failures } = taken;
    let all = verdicts.len();
    let open = verdicts.iter().filter(|verdict| verdict.is_none()).count();
    if let Some((_, error)) = failures.first()
        && let Some(requests_untold) = telling.due(Instant::now())
    {
        tracing::warn!(%error, events = open, of = all, requests_untold, "events could not be taken in");
    }
    if open == all {
        return away();
    }
    let rejected = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Some(Verdict::Rejected { .. })))
        .count();
    let mut results: Vec<_> = verdicts.into_iter().map(answer).collect();
    if open > 0 {
        let words = format!(
            "a part of the store does not answer; push those of `results` that are unavailable ({open} of {all}), or all, again"
        );
        let error = Some(Failure::new(UNAVAILABLE, words));
        let results = Json(Results { error, results });
        let partly = (StatusCode::SERVICE_UNAVAILABLE, results);
        return again_after(RECOVERY, partly.into_response());
    }
    let status = match rejected {
        0 => StatusCode::ACCEPTED,
        rejected if rejected == all => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::MULTI_STATUS,
    };
    match results.pop() {
        Some(only) if !batch => (status, Json(only)).into_response(),
        last => {
            results.extend(last);
            let error = None;
            (status, Json(Results { error, results })).into_response()
        }
    }
}

fn again_after(seconds: HeaderValue, mut response: Response) -> Response {
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

fn answer(verdict: Option<Verdict>) -> Answer {
    let (status, deliveries, error) = match verdict {
        Some(Verdict::Enqueued { deliveries }) => ("enqueued", Some(deliveries), None),
        Some(Verdict::Duplicate) => ("duplicate", None, None),
        Some(Verdict::Rejected { code, reason }) => {
            ("rejected", None, Some(Failure::new(code, reason)))
        }
        None => {
            let words = "its part of the store does not answer; push the event again";
            ("unavailable", None, Some(Failure::new(UNAVAILABLE, words)))
        }
    };
    Answer {
        status,
        deliveries,
        error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use wasmhook_store::StoreError;

    use super::*;

    const ENQUEUED: Verdict = Verdict::Enqueued { deliveries: 2 };

    fn rejected() -> Verdict {
        Verdict::Rejected {
            code: "invalid_event",
            reason: "invalid webhook event".to_owned(),
        }
    }

    /// The answer to a batch: status, `Retry-After` and body.
    async fn answered(verdicts: Vec<Option<Verdict>>) -> (u16, Option<String>, Value) {
        let away = StoreError::Unavailable {
            store: "Redis at 127.0.0.1".to_owned(),
            reason: "no answer".to_owned(),
        };
        let failures = if verdicts.contains(&None) {
            vec![(1, away)]
        } else {
            Vec::new()
        };
        let response = taken(Taken { verdicts, failures }, true, &Telling::default());
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER);
        let after = after.map(|after| after.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        let body = serde_json::from_slice(&body.unwrap()).unwrap();
        (status, after, body)
    }

    fn statuses(body: &Value) -> Vec<&str> {
        let results = body["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["status"].as_str().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_batch_is_taken_in_partly_refused_or_refused() {
        for (verdicts, expected) in [
            (vec![ENQUEUED, Verdict::Duplicate], 202),
            (vec![ENQUEUED, rejected()], 207),
            (vec![rejected(), rejected()], 422),
        ] {
            let verdicts = verdicts.into_iter().map(Some).collect();
            let (status, after, body) = answered(verdicts).await;
            assert_eq!((status, after), (expected, None), "{body}");
            assert!(body["error"].is_null(), "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_durable_is_told_beside_what_is_to_be_pushed_again() {
        let verdicts = vec![Some(ENQUEUED), None, Some(rejected()), None];
        let (status, after, body) = answered(verdicts).await;
        assert_eq!((status, after.as_deref()), (503, Some("1")));
        let expected = ["enqueued", "unavailable", "rejected", "unavailable"];
        assert_eq!(statuses(&body), expected);
        assert_eq!(body["error"]["code"], "store_unavailable");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("(2 of 4)"), "{message}");
        assert_eq!(body["results"][1]["error"]["code"], "store_unavailable");
    }

    #[tokio::test]
    async fn a_batch_of_which_nothing_is_known_has_no_results() {
        let (status, after, body) = answered(vec![None, None]).await;
        assert_eq!((status, after.as_deref()), (503, Some("1")));
        assert_eq!(body["error"]["code"], "store_unavailable");
        assert!(body["results"].is_null(), "{body}");
    }
}
