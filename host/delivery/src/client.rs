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
use tokio::time::timeout_at;
use url::Host;
use wasmhook_core::attempt::{Attempt, ErrorClass};
use wasmhook_core::{EndpointUrl, OutgoingRequest, TenantId};

use crate::address::AddressPolicy;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::failure::{self, Failure};
use crate::lookups::{ASKING, Lookups};
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
    /// For whom requests are made.
    tenant: Option<TenantId>,
}

/// What a receiver answered, as far as it was read.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers. The HTTP library bounds them, at 100 and some hundred KiB in all.
    pub headers: HeaderMap,
    /// The body up to [`ClientConfig::response_cap`], and up to where it broke off or the time was over.
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
        Self::with_lookups(config, Lookups::new())
    }

    fn with_lookups(config: ClientConfig, lookups: Arc<Lookups>) -> Result<Self, ClientError> {
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
            .dns_resolver(GuardedResolver::new(Arc::clone(&addresses), lookups))
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self {
            http,
            addresses,
            timeout: config.timeout,
            response_cap: config.response_cap,
            tenant: None,
        })
    }

    /// The same client, for requests of one tenant, whose host names that do not resolve hold up its own
    /// requests only.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Self {
        Self {
            tenant: Some(tenant.clone()),
            ..self.clone()
        }
    }

    /// Sends the request as the given one-based attempt, begun at `at`. Never fails: what went wrong
    /// is the attempt.
    pub fn post(
        &self,
        request: OutgoingRequest,
        number: u32,
        at: Timestamp,
    ) -> impl Future<Output = Attempt> + Send + use<> {
        let exchange = self.exchange(request, number, at);
        async move { exchange.await.0 }
    }

    /// The same, and the answer if one came, for who has more to say about it than its status does.
    ///
    /// With the status the receiver has said whether it accepts; a body that breaks off or drips takes nothing of
    /// that back, and to send once more what was accepted would be worse than to know less of an answer.
    pub fn exchange(
        &self,
        outgoing: OutgoingRequest,
        number: u32,
        at: Timestamp,
    ) -> impl Future<Output = (Attempt, Option<Answer>)> + Send + use<> {
        let started = Instant::now();
        let mut request = Request::new(Method::POST, outgoing.url.as_url().clone());
        *request.headers_mut() = outgoing.headers;
        *request.body_mut() = Some(Body::from(outgoing.body));
        let deadline = started + self.timeout;
        let answer = self.exchange_with(request, &outgoing.url, deadline, self.response_cap);
        async move {
            let answered = answer.await;
            let took = started.elapsed();
            match answered {
                Ok(Answered { answer, .. }) => {
                    let attempt = answer.attempt(number, at, took);
                    (attempt, Some(answer))
                }
                Err(Failure { class, words }) => {
                    (Attempt::unanswered(number, at, took, class, words), None)
                }
            }
        }
    }

    /// Makes a request to a URL, if its address is allowed, and reads the answer's body up to `cap`, until the
    /// deadline. It is handed to the HTTP client before the future is made, so that the many futures of a busy host
    /// are small.
    pub(crate) fn exchange_with(
        &self,
        request: Request,
        url: &EndpointUrl,
        deadline: Instant,
        cap: usize,
    ) -> impl Future<Output = Result<Answered, Failure>> + Send + use<> {
        // The resolver is not asked about an address that is written out in the URL.
        let allowed = literal(&url.host()).is_none_or(|address| self.addresses.allows(address));
        let executing = allowed.then(|| self.http.execute(request));
        let tenant = self.tenant.clone();
        async move {
            let executing = executing.ok_or(Failure::from(ErrorClass::AddressRefused))?;
            let responding = async {
                match tenant {
                    Some(tenant) => ASKING.scope(tenant, executing).await,
                    None => executing.await,
                }
            };
            let deadline = deadline.into();
            let response = timeout_at(deadline, responding).await;
            let response = response.map_err(|_| Failure::from(ErrorClass::Timeout))?;
            let mut response = response.map_err(|error| failure::classify(&error))?;
            let mut body = Vec::new();
            let read = timeout_at(deadline, excerpt(&mut response, cap, &mut body)).await;
            let read = read.unwrap_or(Err(ErrorClass::Timeout));
            let answer = Answer {
                status: response.status().as_u16(),
                headers: std::mem::take(response.headers_mut()),
                body: body.into(),
                complete: matches!(read, Ok(true)),
            };
            let broken = read.err();
            Ok(Answered { answer, broken })
        }
    }
}

/// An answer, and why its body could not be read to the end or the cap, if it could not.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) broken: Option<ErrorClass>,
}

/// Reads the body up to the cap, and says whether that is all of it. What is longer is left unread, and its
/// connection is closed when the response is dropped; a body that ended leaves the connection to the next request.
async fn excerpt(
    response: &mut Response,
    cap: usize,
    kept: &mut Vec<u8>,
) -> Result<bool, ErrorClass> {
    let mut cut = false;
    while kept.len() < cap {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = cap - kept.len();
                cut = chunk.len() > room;
                kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(None) => return Ok(true),
            Err(error) => return Err(failure::classify(&error).class),
        }
    }
    // At the cap: taking the end, if it is here already, keeps the connection usable.
    let ended = matches!(response.chunk().now_or_never(), Some(Ok(None)));
    Ok(ended && !cut)
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::lookups::PER_TENANT;

    #[tokio::test]
    async fn a_lookup_is_counted_for_the_tenant_of_the_request() {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let lookups = Lookups::by(move |_| {
            let _ = gate.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let config = ClientConfig {
            timeout: Duration::from_millis(300),
            ..ClientConfig::default()
        };
        let client = Client::with_lookups(config, Arc::clone(&lookups)).unwrap();
        let (acme, other) = (
            TenantId::new("acme").unwrap(),
            TenantId::new("other").unwrap(),
        );
        let request = OutgoingRequest {
            url: EndpointUrl::new("https://dead.example/").unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let attempt = client.of(&acme).post(request, 1, Timestamp::now()).await;
        assert_eq!(attempt.error_class, Some(ErrorClass::Timeout));
        assert_eq!(lookups.free(&acme), PER_TENANT - 1);
        assert_eq!(lookups.free(&other), PER_TENANT);
        drop(open);
    }
}
