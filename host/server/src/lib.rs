//! HTTP API of wasmhook: events in, health and metrics out.
//!
//! | route | answers |
//! |---|---|
//! | `POST /v1/events` | 202 once the events are durable; see [`events`] |
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 while the store answers, 503 otherwise |
//! | `GET /v1/plugins` | which version of which plugin serves, and why a newer one does not |
//! | `GET /metrics` | Prometheus text |
//!
//! With a token, `/v1` and `/metrics` want `Authorization: Bearer <token>`. Without one the host
//! listens on loopback only, which its configuration sees to.
#![forbid(unsafe_code)]

pub mod auth;
mod connections;
pub mod events;
pub mod health;
mod starting;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wasmhook_engine::{Intake, Pressure};
use wasmhook_store::Store;

pub use self::connections::Patience;
use self::events::{Refusal, Telling, failure};
pub use self::starting::serve_start;

/// What the API serves from.
pub struct Api {
    /// Takes events in.
    pub intake: Arc<Intake>,
    /// Says when events should not be taken in.
    pub pressure: Pressure,
    /// Asked for signs of life.
    pub store: Arc<dyn Store>,
    /// The bearer token; `None` lets everyone in who can connect.
    pub token: Option<SecretString>,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// How long clients are waited for.
    pub patience: Patience,
    /// Renders the metrics.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Describes the plugins of all tenants.
    pub plugins: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// All routes.
pub fn router(api: Api) -> Router {
    let max_body = api.max_body;
    let api = Arc::new(api);
    let guarded = Router::new()
        .route("/v1/events", post(events::post))
        .route("/v1/plugins", get(health::plugins))
        .route("/metrics", get(health::metrics))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&api),
            auth::require_token,
        ));
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(max_body))
        .layer(Extension(Arc::<Telling>::default()))
        .with_state(api)
}

async fn no_such_path() -> (StatusCode, Json<Refusal>) {
    let words = "expected /v1/events, /v1/plugins, /healthz, /readyz or /metrics";
    failure(StatusCode::NOT_FOUND, "not_found", words)
}

async fn no_such_method() -> (StatusCode, Json<Refusal>) {
    let words = "expected POST for /v1/events and GET for all else";
    failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", words)
}

/// Serves until `stop`, then lets requests under way finish, within [`Patience::finish`].
pub async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let patience = api.patience;
    connections::serve(listener, router(api), patience, stop).await;
}
