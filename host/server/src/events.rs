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
//! | 400, 408, 413, 415 | the body as a whole cannot be read, does not come, is larger or holds more than it may, or is of another type |
//! | 429 | the queue is full; push again after the seconds in `Retry-After` |
//! | 503 | the store, or a part of it, does not answer, or not within [`Patience::store`](crate::Patience::store); push again after the seconds in `Retry-After`, which makes no second delivery |
//!
//! A batch of which a part is durable is answered with 503 too, so that nobody takes it for done: who
//! repeats the whole of it does well, and who looks finds in `results` which events are `unavailable` and
//! alone want to be repeated.

mod answer;
mod body;
mod telling;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use wasmhook_engine::Source;

pub(crate) use self::answer::{Refusal, failure};
pub use self::body::MAX_EVENTS;
pub(crate) use self::telling::Telling;
use crate::Api;

pub(crate) async fn post(
    State(api): State<Arc<Api>>,
    Extension(telling): Extension<Arc<Telling>>,
    request: Request,
) -> Response {
    if let Some(full) = api.pressure.full() {
        return answer::full(&full.to_string());
    }
    let headers = request.headers().clone();
    let body = body::gather(request, api.max_body, api.patience.body).await;
    let (drafts, batch) = match body.and_then(|body| body::read(&headers, &body)) {
        Ok(read) => read,
        Err(refused) => {
            return failure(refused.status, refused.code, &refused.message).into_response();
        }
    };
    // As when a client goes away: what the store has of it by then is durable, and a second push finds it.
    match timeout(api.patience.store, api.intake.accept(Source::Http, drafts)).await {
        Ok(taken) => answer::taken(taken, batch, &telling),
        Err(_) => answer::silent(api.patience.store, &telling),
    }
}
