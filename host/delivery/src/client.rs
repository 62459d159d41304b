//! The exchange with a receiver.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::Method;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Body, Request, Response};
use url::Host;
use wasmhook_core::OutgoingRequest;
use wasmhook_core::attempt::{Attempt, ErrorClass};

use crate::address::AddressPolicy;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::failure;
use crate::resolver::GuardedResolver;
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

/// What a receiver answered.
struct Answer {
    status: u16,
    excerpt: Option<String>,
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
        let started = Instant::now();
        let exchanged = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let took = started.elapsed();
        match exchanged.unwrap_or(Err(ErrorClass::Timeout)) {
            Ok(answer) => Attempt {
                response_excerpt: answer.excerpt,
                ..Attempt::answered(number, at, took, answer.status)
            },
            Err(class) => Attempt::unanswered(number, at, took, class, failure::words(class)),
        }
    }

    async fn exchange(&self, outgoing: OutgoingRequest) -> Result<Answer, ErrorClass> {
        // The resolver is not asked about an address that is written out in the URL.
        if literal(&outgoing.url.host()).is_some_and(|address| !self.addresses.allows(address)) {
            return Err(ErrorClass::AddressRefused);
        }
        let mut request = Request::new(Method::POST, outgoing.url.as_url().clone());
        *request.headers_mut() = outgoing.headers;
        *request.body_mut() = Some(Body::from(outgoing.body));
        let mut response = self
            .http
            .execute(request)
            .await
            .map_err(|error| failure::classify(&error))?;
        Ok(Answer {
            status: response.status().as_u16(),
            excerpt: self.excerpt(&mut response).await?,
        })
    }

    /// Reads the body up to the cap. What is longer is left unread, and its connection is closed
    /// when the response is dropped; a body that ended leaves the connection to the next request.
    async fn excerpt(&self, response: &mut Response) -> Result<Option<String>, ErrorClass> {
        let mut kept = Vec::new();
        while kept.len() < self.response_cap {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = self.response_cap - kept.len();
                    kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                Ok(None) => return Ok(text(&kept)),
                Err(error) => return Err(failure::classify(&error)),
            }
        }
        // At the cap: taking the end, if it is here already, keeps the connection usable.
        let _ = response.chunk().now_or_never();
        Ok(text(&kept))
    }
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
