//! Ports in memory, and the things that the tests are about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::ports::{
    AttemptRecorder, Deliverer, DeliveryEnqueuer, EndpointGetter, EndpointRegistry, Enqueued,
    MetricsRecorder, Replayer,
};
use wasmhook_core::{
    AttemptResult, BodyForm, Clock, Context, Delivery, DeliveryId, Endpoint, EndpointId,
    EndpointUrl, Error, ErrorClass, Event, EventDraft, EventType, Job, Outcome, Result,
    SafeHeaders, SecretName, SignatureProfile, StatusClass, Subscription, TenantId,
};

/// When every test happens.
pub(crate) fn now() -> Timestamp {
    time("2026-03-01T10:00:05Z")
}

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A clock that stands still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At(pub(crate) Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// `invoice.paid` of acme, with numbers that a careless host would rewrite.
pub(crate) fn draft() -> EventDraft {
    EventDraft {
        id: "evt_1".into(),
        tenant: "acme".into(),
        event_type: "invoice.paid".into(),
        payload: br#"{"total":1.00, "n":1e2}"#.as_slice().into(),
        occurred_at: Some("2026-03-01T12:00:00+02:00".into()),
        ..EventDraft::default()
    }
}

pub(crate) fn event() -> Event {
    draft().accept(now(), 1024).unwrap()
}

/// An enabled endpoint of acme that wants everything.
pub(crate) fn endpoint(id: &str) -> Endpoint {
    Endpoint {
        id: EndpointId::new(id).unwrap(),
        tenant_id: TenantId::new("acme").unwrap(),
        url: EndpointUrl::new("https://receiver.example/hooks").unwrap(),
        secrets: vec![SecretName::new("main").unwrap()],
        events: vec![Subscription::All],
        headers: SafeHeaders::default(),
        disabled: false,
        ordering: None,
        profile: SignatureProfile::Standard,
        body: BodyForm::Payload,
        created_at: now(),
        updated_at: now(),
    }
}

pub(crate) fn subscribed(id: &str, event_type: &str) -> Endpoint {
    Endpoint {
        events: vec![Subscription::new(event_type).unwrap()],
        ..endpoint(id)
    }
}

pub(crate) fn of_tenant(tenant: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint {
        tenant_id: TenantId::new(tenant).unwrap(),
        ..endpoint
    }
}

pub(crate) fn with_headers(endpoint: Endpoint, headers: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        headers: SafeHeaders::new(headers.iter().copied()).unwrap(),
        ..endpoint
    }
}

/// What happened, in order, across all ports of a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Endpoints by tenant and id. Its list answers too much on purpose, other tenants' endpoints
/// included: the port allows that, so the dispatcher has to filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    endpoints: Arc<Mutex<Vec<Arc<Endpoint>>>>,
    pub(crate) journal: Journal,
}

impl Registry {
    pub(crate) fn of(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let registry = Self::default();
        registry.replace(endpoints);
        registry
    }

    /// Puts these in place of all there were.
    pub(crate) fn replace(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        *self.endpoints.lock().unwrap() = endpoints.into_iter().map(Arc::new).collect();
    }
}

impl EndpointRegistry for Registry {
    async fn list(&self, tenant: &TenantId, event_type: &EventType) -> Result<Vec<Arc<Endpoint>>> {
        self.journal.note(format!("list {tenant} {event_type}"));
        Ok(self.endpoints.lock().unwrap().clone())
    }
}

impl EndpointGetter for Registry {
    async fn get(&self, tenant: &TenantId, id: &EndpointId) -> Result<Option<Arc<Endpoint>>> {
        self.journal.note(format!("get {tenant} {id}"));
        let endpoints = self.endpoints.lock().unwrap();
        let found = endpoints
            .iter()
            .find(|endpoint| endpoint.tenant_id == *tenant && endpoint.id == *id);
        Ok(found.cloned())
    }
}

/// Deliveries by tenant and id, and the events that were seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    events: Arc<Mutex<BTreeSet<(TenantId, String)>>>,
    deliveries: Arc<Mutex<BTreeMap<(TenantId, DeliveryId), Delivery>>>,
}

impl Store {
    /// All deliveries, in the order of their endpoints' ids.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let mut all: Vec<_> = self.deliveries.lock().unwrap().values().cloned().collect();
        all.sort_by(|a, b| a.endpoint_id.cmp(&b.endpoint_id));
        all
    }

    pub(crate) fn put(&self, delivery: Delivery) {
        let key = (delivery.tenant_id.clone(), delivery.id.clone());
        self.deliveries.lock().unwrap().insert(key, delivery);
    }
}

impl DeliveryEnqueuer for Store {
    async fn enqueue(&self, event: &Event, deliveries: &[Delivery]) -> Result<Enqueued> {
        let key = (event.tenant_id.clone(), event.id.to_string());
        if !self.events.lock().unwrap().insert(key) {
            return Ok(Enqueued {
                created: 0,
                duplicate: true,
            });
        }
        let mut kept = self.deliveries.lock().unwrap();
        let before = kept.len();
        for delivery in deliveries {
            kept.entry((delivery.tenant_id.clone(), delivery.id.clone()))
                .or_insert_with(|| delivery.clone());
        }
        Ok(Enqueued {
            created: kept.len() - before,
            duplicate: false,
        })
    }
}

impl Replayer for Store {
    async fn replay(&self, tenant: &TenantId, id: &DeliveryId, now: Timestamp) -> Result<()> {
        let mut kept = self.deliveries.lock().unwrap();
        let delivery = kept
            .get_mut(&(tenant.clone(), id.clone()))
            .ok_or_else(|| Error::DeliveryNotFound(Context::words("none of that id")))?;
        *delivery = delivery.replayed(now)?;
        Ok(())
    }
}

/// What the receiver does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Receiver {
    Answers(u16),
    IsUnreachable,
}

/// Stands for the network: notes each request that would be made.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) receiver: Receiver,
    pub(crate) journal: Journal,
}

impl Deliverer for Network {
    async fn deliver(&self, job: &Job, endpoint: &Endpoint, attempt: u32) -> AttemptResult {
        let Endpoint { id, url, .. } = endpoint;
        self.journal
            .note(format!("request {attempt} to {id} at {url}"));
        let attempt = match self.receiver {
            Receiver::Answers(status) => Attempt::answered(attempt, now(), Duration::ZERO, status),
            Receiver::IsUnreachable => Attempt::unanswered(
                attempt,
                now(),
                Duration::ZERO,
                ErrorClass::Connect,
                "no connection could be made",
            ),
        };
        AttemptResult {
            delivery_id: job.id.clone(),
            tenant_id: job.tenant_id.clone(),
            endpoint_id: id.clone(),
            event_id: job.payload.event.id.clone(),
            event_type: job.payload.event.event_type.clone(),
            attempt,
        }
    }
}

/// Keeps attempts, or fails to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts {
    pub(crate) kept: Arc<Mutex<Vec<AttemptResult>>>,
    pub(crate) broken: bool,
    pub(crate) journal: Journal,
}

impl AttemptRecorder for Attempts {
    async fn record(&self, attempt: &AttemptResult) -> Result<()> {
        if self.broken {
            return Err(Error::Store("the disk is full".into()));
        }
        self.journal
            .note(format!("record {}", attempt.attempt.number));
        self.kept.lock().unwrap().push(attempt.clone());
        Ok(())
    }
}

/// Notes each observation with all of its labels.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(pub(crate) Journal);

impl MetricsRecorder for Metrics {
    fn attempt(&self, event_type: &EventType, outcome: Outcome, status_class: StatusClass) {
        self.0
            .note(format!("metric {event_type} {outcome} {status_class}"));
    }
}
