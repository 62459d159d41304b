//! Signs of life, metrics, and the state of plugins.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;

use crate::Api;
use crate::events::failure;

/// The process runs.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// The store answers, so that events can be accepted.
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let patience = api.patience.probe;
    let words = match timeout(patience, api.store.ping()).await {
        Ok(Ok(())) => return "ok\n".into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the store has not answered within {patience:?}"),
    };
    failure(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", &words).into_response()
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
