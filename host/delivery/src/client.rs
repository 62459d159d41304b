//! The exchange with a receiver.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Body, Request, Response};
use url::Host;
use wasmhook_core::attempt::{Attempt, ErrorClass};
use wasmhook_core::{EndpointUrl, OutgoingRequest};

use crate::address::AddressPolicy;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::failure;
use crate::resolver::GuardedResolver;
use crate::retry_after;
use crate::tls;

/// Posts signed requests to receivers over HTTP/1.1, keeping connections alive. Cheap to clone; all
/// clones share one pool, so a host needs one.
///
/// It follows no redirects, takes no proxy from the environment, keeps no cookies and decompresses
/// nothing.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    addresses: Arc<AddressPolicy>,
    timeout: Duration,
    response_cap: usize,
}

/// What a receiver answered, as far as it was read.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers. The HTTP library bounds them, at 100 and some hundred KiB in all.
    pub headers: HeaderMap,
    /// The body up to [`ClientConfig::response_cap`].
    pub body: Bytes,
    /// Whether that is all of it.
    pub complete: bool,
}

// By hand: an answer is the receiver's content and must not reach a log by a debug print.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// The attempt that ended with this answer, judged by its status and what it asks for with
    /// `Retry-After`.
    pub fn attempt(&self, number: u32, at: Timestamp, took: Duration) -> Attempt {
        let wait = retry_after::read(&self.headers, SystemTime::now());
        Attempt {
            response_excerpt: text(&self.body),
            ..Attempt::answered(number, at, took, self.status).asked_to_wait(wait)
        }
    }
}

impl Client {
    /// Makes a client, reading the machine's root certificates.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        config.check()?;
        let addresses = Arc::new(config.addresses);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config()?)
            .http1_only()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.max_idle_per_host)
            .pool_idle_timeout(config.idle_timeout)
            .dns_resolver(GuardedResolver::new(Arc::clone(&addresses)))
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self {
            http,
            addresses,
            timeout: config.timeout,
            response_cap: config.response_cap,
        })
    }

    /// Sends the request as the given one-based attempt, begun at `at`. Never fails: what went wrong
    /// is the attempt.
    pub async fn post(&self, request: OutgoingRequest, number: u32, at: Timestamp) -> Attempt {
        self.exchange(request, number, at).await.0
    }

    /// The same, and the answer if one came, for who has more to say about it than its status does.
    pub async fn exchange(
        &self,
        request: OutgoingRequest,
        number: u32,
        at: Timestamp,
    ) -> (Attempt, Option<Answer>) {
        let started = Instant::now();
        let exchanged = tokio::time::timeout(self.timeout, self.send(request)).await;
        let took = started.elapsed();
        match exchanged.unwrap_or(Err(ErrorClass::Timeout)) {
            Ok(answer) => {
                let attempt = answer.attempt(number, at, took);
                (attempt, Some(answer))
            }
            Err(class) => {
                let attempt = Attempt::unanswered(number, at, took, class, failure::words(class));
                (attempt, None)
            }
        }
    }

    async fn send(&self, outgoing: OutgoingRequest) -> Result<Answer, ErrorClass> {
        let mut request = Request::new(Method::POST, outgoing.url.as_url().clone());
        *request.headers_mut() = outgoing.headers;
        *request.body_mut() = Some(Body::from(outgoing.body));
        self.exchange_with(request, &outgoing.url, self.response_cap)
            .await
    }

    /// Makes a request to a URL, if its address is allowed, and reads the answer's body up to `cap`.
    pub(crate) async fn exchange_with(
        &self,
        request: Request,
        url: &EndpointUrl,
        cap: usize,
    ) -> Result<Answer, ErrorClass> {
        // The resolver is not asked about an address that is written out in the URL.
        if literal(&url.host()).is_some_and(|address| !self.addresses.allows(address)) {
            return Err(ErrorClass::AddressRefused);
        }
        let mut response = self
            .http
            .execute(request)
            .await
            .map_err(|error| failure::classify(&error))?;
        let (body, complete) = excerpt(&mut response, cap).await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
            complete,
        })
    }
}

/// Reads the body up to the cap. What is longer is left unread, and its connection is closed
/// when the response is dropped; a body that ended leaves the connection to the next request.
async fn excerpt(response: &mut Response, cap: usize) -> Result<(Bytes, bool), ErrorClass> {
    let (mut kept, mut cut) = (Vec::new(), false);
    while kept.len() < cap {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = cap - kept.len();
                cut = chunk.len() > room;
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(None) => return Ok((kept.into(), true)),
            Err(error) => return Err(failure::classify(&error)),
        }
    }
    // At the cap: taking the end, if it is here already, keeps the connection usable.
    let ended = matches!(response.chunk().now_or_never(), Some(Ok(None)));
    Ok((kept.into(), ended && !cut))
}

fn literal(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(v4) => Some((*v4).into()),
        Host::Ipv6(v6) => Some((*v6).into()),
        Host::Domain(_) => None,
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}
