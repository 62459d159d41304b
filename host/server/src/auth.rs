//! The bearer token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use crate::Api;
use crate::events::failure;

/// Lets a request pass that carries the token, or any when there is none.
pub(crate) async fn require_token(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &api.token else {
        return next.run(request).await;
    };
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    // In constant time, so that the token cannot be guessed byte by byte.
    if bool::from(given.ct_eq(token.expose_secret().as_bytes())) {
        return next.run(request).await;
    }
    let words = "expected the header `Authorization: Bearer` with the configured token";
    let mut response = failure(StatusCode::UNAUTHORIZED, "unauthorized", words).into_response();
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        axum::http::HeaderValue::from_static("Bearer"),
    );
    response
}
