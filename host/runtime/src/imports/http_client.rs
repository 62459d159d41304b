//! `wasmhook:plugin/http-client`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::bindings::http_client::{self, Error, IncomingResponse, OutgoingRequest};
use crate::budget::Import;
use crate::grants::Grants;
use crate::state::State;

/// Makes the requests of plugins.
#[async_trait]
pub trait HttpClient: Send + Sync {
    /// Make one request for a tenant, if the grants allow its host, within the bounds.
    async fn fetch(
        &self,
        tenant: &str,
        request: HttpRequest,
        grants: &Grants,
        bounds: HttpBounds,
    ) -> Result<HttpResponse, HttpError>;
}

/// A request as a guest made it. Unchecked.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// How long and how large an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpBounds {
    /// For the whole exchange.
    pub time: Duration,
    /// Bytes of the answer's body.
    pub response_bytes: usize,
}

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// All of the body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// The request cannot be sent; why, in a sentence that holds nothing of it.
    BadRequest(String),
    /// The host is not granted.
    NotGranted,
    /// The host has no address that requests may go to.
    AddressRefused,
    /// The answer is larger than it may be.
    ResponseTooLarge,
    /// It did not come in time.
    Timeout,
    /// The exchange failed.
    Unreachable,
}

impl http_client::Host for State {
    async fn fetch(
        &mut self,
        request: OutgoingRequest,
    ) -> wasmtime::Result<Result<IncomingResponse, Error>> {
        self.budget.admit(Import::HttpClient)?;
        let limits = &self.limits;
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        if request.body.len() > limits.http_request_bytes {
            return Ok(Err(Error::RequestTooLarge(number(
                limits.http_request_bytes,
            ))));
        }
        if !self.budget.take_request() {
            return Ok(Err(Error::TooManyRequests(limits.http_requests)));
        }
        let Some(client) = self.provided.services.http.clone() else {
            return Ok(Err(Error::Unreachable));
        };
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
        };
        let bounds = HttpBounds {
            time: Duration::from_millis(limits.http_time_ms),
            response_bytes: limits.http_response_bytes,
        };
        let tenant = Arc::clone(&self.provided.tenant);
        let answer = client
            .fetch(&tenant, request, &self.provided.grants, bounds)
            .await;
        Ok(answer
            .map(|answer| IncomingResponse {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
            })
            .map_err(|error| match error {
                HttpError::BadRequest(why) => Error::BadRequest(why),
                HttpError::NotGranted => Error::NotGranted,
                HttpError::AddressRefused => Error::AddressRefused,
                HttpError::ResponseTooLarge => {
                    Error::ResponseTooLarge(number(limits.http_response_bytes))
                }
                HttpError::Timeout => {
                    Error::Timeout(u32::try_from(limits.http_time_ms).unwrap_or(u32::MAX))
                }
                HttpError::Unreachable => Error::Unreachable,
            }))
    }
}
