//! Signs of life, metrics, and the state of plugins.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use crate::Api;
use crate::events::failure;

/// The process runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// The store answers, so that events can be accepted.
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Response {
    match api.store.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            &error.to_string(),
        )
        .into_response(),
    }
}

/// All metrics as Prometheus text.
pub(crate) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    (
        [("content-type", "text/plain; version=0.0.4")],
        (api.metrics)(),
    )
        .into_response()
}

/// The plugins of all tenants.
pub(crate) async fn plugins(State(api): State<Arc<Api>>) -> Response {
    axum::Json((api.plugins)()).into_response()
}
