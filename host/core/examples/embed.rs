//! A whole webhook service in one file: the domain of wasmhook embedded in a program that brings
//! its own registry, store, secrets and HTTP.
//!
//! Run it with `cargo run -p wasmhook-core --example embed`. It starts a receiver on this machine
//! that fails once and then accepts, pushes an event to it, retries, pushes the event again (which
//! changes nothing), replays the delivery, and ends.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::ports::{
    AttemptRecorder, Deliverer, DeliveryEnqueuer, EndpointGetter, EndpointRegistry, Enqueued,
    Replayer, SecretResolver,
};
use wasmhook_core::request::Content;
use wasmhook_core::{
    AttemptResult, BodyForm, Catalog, Context, Delivery, DeliveryId, DeliveryState, Dispatcher,
    Endpoint, EndpointId, EndpointPolicy, EndpointUrl, Error, ErrorClass, Event, EventDraft,
    EventType, Handler, Job, Outcome, OutgoingRequest, RequestBuilder, Result, RetryPolicy,
    SafeHeaders, SecretName, SignatureProfile, SigningSecret, Subscription, SystemClock, TenantId,
    replay,
};

/// A sample. A real one is 24 to 64 random bytes, and each endpoint has its own.
const SECRET: &str = "whsec_d2FzbWhvb2stc2FtcGxlLXNlY3JldC1hY21l";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    run().await.map(|_| ())
}

/// What the run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Status of each attempt, in order.
    pub(crate) statuses: Vec<Option<u16>>,
    /// Bodies whose signature the receiver verified, in order.
    pub(crate) verified: Vec<String>,
    /// Where the delivery stands in the end.
    pub(crate) state: DeliveryState,
}

/// Pushes an event, works it off, replays it.
pub(crate) async fn run() -> Result<Summary, AnyError> {
    let (address, verified) = start_receiver()?;
    let memory = Memory::default();
    memory.lock().endpoints.push(Arc::new(Endpoint {
        id: EndpointId::new("main")?,
        tenant_id: TenantId::new("acme")?,
        url: EndpointUrl::new(&format!("http://{address}/hooks"))?,
        secrets: vec![SecretName::new("main")?],
        events: vec![Subscription::new("invoice.paid")?],
        headers: SafeHeaders::new([("x-env", "example")])?,
        disabled: false,
        ordering: None,
        profile: SignatureProfile::Standard,
        body: BodyForm::Payload,
        created_at: Timestamp::now(),
        updated_at: Timestamp::now(),
    }));

    let catalog = Catalog::new(["invoice.paid", "invoice.voided"])?;
    let dispatcher = Dispatcher::new(catalog, Some(memory.clone()), Some(memory.clone()))?
        .with_policy(EndpointPolicy {
            allow_insecure_http: true, // the receiver listens on this machine
        });
    let handler = Handler::new(
        memory.clone(),
        Http {
            secrets: memory.clone(),
            requests: RequestBuilder::default(),
        },
        memory.clone(),
        RetryPolicy {
            base: Duration::from_millis(20),
            ..RetryPolicy::default()
        },
    );

    let push = || EventDraft {
        id: "evt_1".into(),
        tenant: "acme".into(),
        event_type: "invoice.paid".into(),
        payload: br#"{"invoice":"inv_1","total":12.50}"#.as_slice().into(),
        ..EventDraft::default()
    };
    println!(
        "pushed evt_1: {:?}",
        dispatcher.dispatch_draft(push()).await?
    );
    work_off(&memory, &handler).await?;
    println!(
        "pushed evt_1 again: {:?}",
        dispatcher.dispatch_draft(push()).await?
    );

    let id = memory.first_delivery().ok_or("nothing was enqueued")?.id;
    replay(Some(&memory), &SystemClock, "acme", id.as_str()).await?;
    println!("replayed {id}");
    work_off(&memory, &handler).await?;
    if let Err(error) = replay(Some(&memory), &SystemClock, "globex", id.as_str()).await {
        println!("globex may not replay it: {error}");
    }

    let delivery = memory.first_delivery().ok_or("the delivery is gone")?;
    let attempts = &memory.lock().attempts;
    Ok(Summary {
        statuses: attempts.iter().map(|a| a.attempt.status_code).collect(),
        verified: verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
        state: delivery.state,
    })
}

/// Handles due deliveries until all are finished: the worker loop of a service.
async fn work_off(memory: &Memory, handler: &Handler<Memory, Http, Memory>) -> Result<()> {
    while let Some((delivery, event)) = memory.next_unfinished() {
        let wait = delivery.next_at.duration_since(Timestamp::now());
        tokio::time::sleep(wait.unsigned_abs() * u32::from(wait.is_positive())).await;
        let (result, conclusion) = handler.handle(&delivery, &delivery.job(&event)).await?;
        let next = delivery.concluded(&result.attempt, conclusion, Timestamp::now());
        println!(
            "attempt {} of {}: {}, status {:?}; the delivery is {}",
            result.attempt.number,
            delivery.id,
            result.attempt.outcome,
            result.attempt.status_code,
            next.state
        );
        memory.lock().deliveries.insert(next.id.clone(), next);
    }
    Ok(())
}

/// Registry, store and secrets in memory. A real store writes durably before it answers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    endpoints: Vec<Arc<Endpoint>>,
    events: HashMap<(TenantId, String), Event>,
    deliveries: HashMap<DeliveryId, Delivery>,
    attempts: Vec<AttemptResult>,
}

impl Memory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_delivery(&self) -> Option<Delivery> {
        self.lock().deliveries.values().next().cloned()
    }

    /// The unfinished delivery that is due first, with its event.
    fn next_unfinished(&self) -> Option<(Delivery, Event)> {
        let tables = self.lock();
        let delivery = tables
            .deliveries
            .values()
            .filter(|d| matches!(d.state, DeliveryState::Pending | DeliveryState::Failed))
            .min_by_key(|d| d.next_at)?;
        let key = (delivery.tenant_id.clone(), delivery.event_id.to_string());
        Some((delivery.clone(), tables.events.get(&key)?.clone()))
    }
}

impl EndpointRegistry for Memory {
    async fn list(&self, tenant: &TenantId, _: &EventType) -> Result<Vec<Arc<Endpoint>>> {
        let tables = self.lock();
        let own = tables.endpoints.iter().filter(|e| e.tenant_id == *tenant);
        Ok(own.cloned().collect())
    }
}

impl EndpointGetter for Memory {
    async fn get(&self, tenant: &TenantId, id: &EndpointId) -> Result<Option<Arc<Endpoint>>> {
        let own = EndpointRegistry::list(self, tenant, &EventType::new("any")?).await?;
        Ok(own.into_iter().find(|endpoint| endpoint.id == *id))
    }
}

impl DeliveryEnqueuer for Memory {
    async fn enqueue(&self, event: &Event, deliveries: &[Delivery]) -> Result<Enqueued> {
        let mut tables = self.lock();
        let key = (event.tenant_id.clone(), event.id.to_string());
        let duplicate = tables.events.insert(key, event.clone()).is_some();
        let before = tables.deliveries.len();
        for delivery in deliveries.iter().filter(|_| !duplicate) {
            let known = tables.deliveries.entry(delivery.id.clone());
            known.or_insert_with(|| delivery.clone());
        }
        Ok(Enqueued {
            created: tables.deliveries.len() - before,
            duplicate,
        })
    }
}

impl AttemptRecorder for Memory {
    async fn record(&self, attempt: &AttemptResult) -> Result<()> {
        self.lock().attempts.push(attempt.clone());
        Ok(())
    }
}

impl Replayer for Memory {
    async fn replay(&self, tenant: &TenantId, id: &DeliveryId, now: Timestamp) -> Result<()> {
        let mut tables = self.lock();
        let delivery = tables
            .deliveries
            .get_mut(id)
            .filter(|delivery| delivery.tenant_id == *tenant)
            .ok_or_else(|| Error::DeliveryNotFound(Context::words("none of that id")))?;
        *delivery = delivery.replayed(now)?;
        Ok(())
    }
}

impl SecretResolver for Memory {
    fn resolve(&self, tenant: &TenantId, name: &SecretName) -> Result<Arc<SigningSecret>> {
        match (tenant.as_str(), name.as_str()) {
            ("acme", "main") => SigningSecret::parse(SECRET).map(Arc::new),
            _ => Err(Error::InvalidEndpoint(Context::field(
                "secrets",
                "expected the name of a secret that the tenant owns",
            ))),
        }
    }
}

/// Sends requests over plain TCP. A real service uses an HTTP client with TLS.
struct Http {
    secrets: Memory,
    requests: RequestBuilder,
}

impl Http {
    fn request(&self, job: &Job, endpoint: &Endpoint, at: Timestamp) -> Result<OutgoingRequest> {
        let secrets = endpoint
            .secrets
            .iter()
            .map(|name| self.secrets.resolve(&endpoint.tenant_id, name))
            .collect::<Result<Vec<_>>>()?;
        let event = &job.payload.event;
        let content = Content::original(event);
        self.requests
            .build(&job.id, event, endpoint, &secrets, &content, at)
    }
}

impl Deliverer for Http {
    async fn deliver(&self, job: &Job, endpoint: &Endpoint, number: u32) -> AttemptResult {
        let (at, began) = (Timestamp::now(), Instant::now());
        let attempt = match self.request(job, endpoint, at) {
            Err(error) => Attempt::refused(
                number,
                at,
                began.elapsed(),
                Outcome::ValidationError,
                ErrorClass::Request,
                false,
                error.to_string(),
            ),
            Ok(request) => match tokio::task::spawn_blocking(move || post(&request)).await {
                Ok(Ok(status)) => Attempt::answered(number, at, began.elapsed(), status),
                _ => Attempt::unanswered(
                    number,
                    at,
                    began.elapsed(),
                    ErrorClass::Protocol,
                    "the receiver gave no HTTP answer",
                ),
            },
        };
        AttemptResult {
            delivery_id: job.id.clone(),
            tenant_id: job.tenant_id.clone(),
            endpoint_id: endpoint.id.clone(),
            event_id: job.payload.event.id.clone(),
            event_type: job.payload.event.event_type.clone(),
            attempt,
        }
    }
}

/// Makes one POST and answers with its status.
fn post(request: &OutgoingRequest) -> std::io::Result<u16> {
    let url = request.url.as_url();
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "POST {} HTTP/1.1\r\nhost: {host}\r\n", url.path())?;
    for (name, value) in &request.headers {
        write!(stream, "{name}: ")?;
        stream.write_all(value.as_bytes())?;
        stream.write_all(b"\r\n")?;
    }
    write!(stream, "content-length: {}\r\n", request.body.len())?;
    stream.write_all(b"connection: close\r\n\r\n")?;
    stream.write_all(&request.body)?;
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Bodies that a receiver verified.
type Verified = Arc<Mutex<Vec<String>>>;

/// Starts the other side: a receiver that verifies each request with the published library, answers
/// the first with 503 and the others with 204, and one with a wrong signature with 400.
fn start_receiver() -> std::io::Result<(std::net::SocketAddr, Verified)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let verified = Verified::default();
    let seen = verified.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the sender's to notice.
            let _ = receive(stream, &seen);
        }
    });
    Ok((address, verified))
}

fn receive(stream: TcpStream, verified: &Verified) -> Result<(), AnyError> {
    let mut reader = BufReader::new(stream);
    let mut headers = http::HeaderMap::new();
    let mut line = String::new();
    reader.read_line(&mut line)?;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(http::HeaderName::try_from(name)?, value.parse()?);
    }
    let length: usize = headers["content-length"].to_str()?.parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let genuine = standardwebhooks::Webhook::new(SECRET)?.verify(&body, &headers);
    let mut verified = verified.lock().unwrap_or_else(PoisonError::into_inner);
    let status = match (genuine, verified.len()) {
        (Err(_), _) => "400 Bad Request",
        (Ok(()), 0) => "503 Service Unavailable",
        (Ok(()), _) => "204 No Content",
    };
    if !status.starts_with("400") {
        verified.push(String::from_utf8(body)?);
    }
    println!("  receiver: {status}");
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes())?;
    Ok(())
}
