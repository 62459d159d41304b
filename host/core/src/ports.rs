//! What a service brings: the traits through which the domain reaches registries, stores and time.
//!
//! They are asynchronous without naming a runtime, and meant to be used as generics.

use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attempt::{AttemptResult, Outcome, StatusClass};
use crate::delivery::{Delivery, Job};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::event::{Event, EventType};
use crate::ids::{DeliveryId, EndpointId, SecretName, TenantId};
use crate::secret::SigningSecret;

pub use crate::clock::Clock;

/// Lists the endpoints of a tenant.
pub trait EndpointRegistry: Send + Sync {
    /// All endpoints of the tenant that may want this type. The dispatcher filters once more, so
    /// answering too much is harmless; answering another tenant's is filtered too.
    fn list(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
    ) -> impl Future<Output = Result<Vec<Arc<Endpoint>>>> + Send;
}

/// Loads one endpoint, tenant-scoped.
pub trait EndpointGetter: Send + Sync {
    /// The endpoint as it is now, or `None` when this tenant has none of that id.
    fn get(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
    ) -> impl Future<Output = Result<Option<Arc<Endpoint>>>> + Send;
}

/// What an enqueue found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Deliveries that are new.
    pub created: usize,
    /// Whether the event was known before, so that nothing was created.
    pub duplicate: bool,
}

/// Keeps deliveries and their jobs.
pub trait DeliveryEnqueuer: Send + Sync {
    /// Writes all deliveries of one event in one atomic step. Idempotent: an event or delivery id
    /// that is known is left as it is. Returns once the write is durable.
    fn enqueue(
        &self,
        event: &Event,
        deliveries: &[Delivery],
    ) -> impl Future<Output = Result<Enqueued>> + Send;
}

/// Keeps attempts.
pub trait AttemptRecorder: Send + Sync {
    /// Records an attempt durably. Called before the job's state changes.
    fn record(&self, attempt: &AttemptResult) -> impl Future<Output = Result<()>> + Send;
}

/// Puts finished deliveries back to work.
pub trait Replayer: Send + Sync {
    /// Makes a succeeded or dead-letter delivery of this tenant pending and due at `now`.
    /// `webhook delivery not found` when this tenant has none of that id, whether or not another
    /// tenant has.
    fn replay(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Finds the secret that a tenant's endpoint names.
pub trait SecretResolver: Send + Sync {
    /// The secret, or `invalid webhook endpoint` naming which one is missing.
    fn resolve(&self, tenant: &TenantId, name: &SecretName) -> Result<Arc<SigningSecret>>;
}

/// Makes one exchange with a receiver.
pub trait Deliverer: Send + Sync {
    /// Delivers the job's event to the endpoint as the given one-based attempt. Never fails: what
    /// went wrong is the result.
    fn deliver(
        &self,
        delivery: &Job,
        endpoint: &Endpoint,
        attempt: u32,
    ) -> impl Future<Output = AttemptResult> + Send;
}

/// Observes outcomes. Labels are type, outcome and status class only: never an id, URL or tenant.
pub trait MetricsRecorder: Send + Sync {
    /// One attempt came to an end.
    fn attempt(&self, event_type: &EventType, outcome: Outcome, status_class: StatusClass);
}

/// Observes nothing.
impl MetricsRecorder for () {
    fn attempt(&self, _: &EventType, _: Outcome, _: StatusClass) {}
}
