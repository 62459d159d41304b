//! Requests that are no deliveries: what a plugin asks of a service, by the same rules and through the same
//! client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Request;
use wasmhook_core::EndpointUrl;
use wasmhook_core::attempt::ErrorClass;

use crate::client::{Answer, Answered, Client};

/// Headers that are the connection's.
const CONNECTIONS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A checked request.
#[derive(Clone)]
pub struct Fetch {
    method: Method,
    url: EndpointUrl,
    headers: HeaderMap,
    body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The method is not one that may be used.
    #[error("expected the method GET, HEAD, POST, PUT, PATCH or DELETE")]
    Method,
    /// A header cannot be sent.
    #[error("a header has a name or value that cannot be sent")]
    Header,
    /// A header is the connection's.
    #[error("a header is one that the connection sets itself")]
    ConnectionHeader,
    /// The body is larger than it may be.
    #[error("the answer is too large")]
    TooLarge,
    /// The exchange failed.
    #[error("the exchange failed: {0}")]
    Failed(ErrorClass),
}

impl Fetch {
    /// Checks method and headers.
    pub fn new(
        method: &str,
        url: EndpointUrl,
        headers: &[(String, String)],
        body: impl Into<Bytes>,
    ) -> Result<Self, FetchError> {
        let method = match method {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => return Err(FetchError::Method),
        };
        let mut checked = HeaderMap::new();
        let agent = concat!("wasmhook/", env!("CARGO_PKG_VERSION"));
        checked.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| FetchError::Header)?;
            if name == HOST || CONNECTIONS.contains(&name.as_str()) {
                return Err(FetchError::ConnectionHeader);
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| FetchError::Header)?;
            // It may be a token.
            value.set_sensitive(true);
            checked.insert(name, value);
        }
        Ok(Self {
            method,
            url,
            headers: checked,
            body: body.into(),
        })
    }
}

impl Client {
    /// Makes the request and reads the whole answer, which may have so many bytes, within the time.
    pub async fn fetch(
        &self,
        fetch: Fetch,
        time: Duration,
        most_bytes: usize,
    ) -> Result<Answer, FetchError> {
        let mut request = Request::new(fetch.method, fetch.url.as_url().clone());
        *request.headers_mut() = fetch.headers;
        if !fetch.body.is_empty() {
            *request.body_mut() = Some(fetch.body.into());
        }
        // One byte more tells an answer that is too large from one that just fits.
        let cap = most_bytes.saturating_add(1);
        let deadline = Instant::now() + time;
        let exchange = self.exchange_with(request, &fetch.url, deadline, cap);
        let Answered { answer, broken } = exchange
            .await
            .map_err(|failure| FetchError::Failed(failure.class))?;
        if let Some(class) = broken {
            return Err(FetchError::Failed(class));
        }
        if answer.body.len() > most_bytes {
            return Err(FetchError::TooLarge);
        }
        Ok(answer)
    }
}
