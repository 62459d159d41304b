//! From an event to its pending deliveries.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::Catalog;
use crate::clock::{Clock, SystemClock};
use crate::delivery::{Delivery, default_id};
use crate::endpoint::{Endpoint, EndpointPolicy};
use crate::error::{Context, Error, Result};
use crate::event::{Event, EventDraft};
use crate::ids::{DeliveryId, EndpointId, EventId, TenantId};
use crate::ports::{DeliveryEnqueuer, EndpointRegistry, Enqueued};

/// Makes the id of a delivery from tenant, event and endpoint.
pub type DeliveryIdFn = fn(&TenantId, &EventId, &EndpointId) -> DeliveryId;

/// The largest payload accepted unless configured otherwise, in bytes.
pub const DEFAULT_MAX_PAYLOAD: usize = 256 * 1024;

/// Turns events into pending deliveries.
#[derive(Debug)]
pub struct Dispatcher<R, S, C = SystemClock> {
    catalog: Catalog,
    registry: R,
    store: S,
    clock: C,
    policy: EndpointPolicy,
    max_payload: usize,
    delivery_id: DeliveryIdFn,
}

impl<R: EndpointRegistry, S: DeliveryEnqueuer> Dispatcher<R, S> {
    /// Makes a dispatcher. Both ports are options so that a service which reads them from its
    /// configuration fails here (`webhook delivery store not configured`), not at the first event.
    pub fn new(catalog: Catalog, registry: Option<R>, store: Option<S>) -> Result<Self> {
        let missing = |what| Error::StoreNotConfigured(Context::words(what));
        Ok(Self {
            catalog,
            registry: registry.ok_or_else(|| missing("expected an endpoint registry"))?,
            store: store.ok_or_else(|| missing("expected a delivery store"))?,
            clock: SystemClock,
            policy: EndpointPolicy::default(),
            max_payload: DEFAULT_MAX_PAYLOAD,
            delivery_id: default_id,
        })
    }
}

impl<R: EndpointRegistry, S: DeliveryEnqueuer, C: Clock> Dispatcher<R, S, C> {
    /// Uses another clock.
    pub fn with_clock<D: Clock>(self, clock: D) -> Dispatcher<R, S, D> {
        let Self {
            catalog,
            registry,
            store,
            policy,
            max_payload,
            delivery_id,
            ..
        } = self;
        Dispatcher {
            catalog,
            registry,
            store,
            clock,
            policy,
            max_payload,
            delivery_id,
        }
    }

    /// Allows what the policy allows of endpoint URLs.
    #[must_use]
    pub fn with_policy(mut self, policy: EndpointPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Accepts payloads up to this many bytes.
    #[must_use]
    pub fn with_max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Makes delivery ids another way. Equal inputs must give equal ids, or a second push of an
    /// event makes second deliveries.
    #[must_use]
    pub fn with_delivery_id(mut self, delivery_id: DeliveryIdFn) -> Self {
        self.delivery_id = delivery_id;
        self
    }

    /// Normalises and validates a draft, then dispatches it.
    pub async fn dispatch_draft(&self, draft: EventDraft) -> Result<Enqueued> {
        let event = draft.accept(self.clock.now(), self.max_payload)?;
        self.dispatch(&event).await
    }

    /// Checks the event against the catalog and enqueues one pending delivery for each matching
    /// endpoint, all in one step of the store.
    pub async fn dispatch(&self, event: &Event) -> Result<Enqueued> {
        self.catalog.check(event)?;
        let endpoints = self
            .registry
            .list(&event.tenant_id, &event.event_type)
            .await?;
        let matching = endpoints
            .into_iter()
            .filter(|endpoint| endpoint.matches(event));
        let deliveries = plan(
            event,
            matching.map(|endpoint| Target {
                endpoint,
                resolved: None,
            }),
            self.policy,
            self.delivery_id,
            self.clock.now(),
        )?;
        self.store.enqueue(event, &deliveries).await
    }
}

/// Where an event is to go: an endpoint, and what a resolver plugin made up if it is one of those.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Set when the endpoint exists for this event only.
    pub resolved: Option<crate::endpoint::ResolvedEndpoint>,
}

/// Validates each target and makes its pending delivery. A target named twice gets one delivery.
pub fn plan(
    event: &Event,
    targets: impl IntoIterator<Item = Target>,
    policy: EndpointPolicy,
    delivery_id: DeliveryIdFn,
    now: Timestamp,
) -> Result<Vec<Delivery>> {
    let mut seen = HashSet::new();
    let mut deliveries = Vec::new();
    for Target { endpoint, resolved } in targets {
        if endpoint.tenant_id != event.tenant_id {
            return Err(Error::TenantMismatch(Context::words(
                "the endpoint is another tenant's",
            )));
        }
        endpoint.validate(policy)?;
        if seen.insert(endpoint.id.clone()) {
            let id = delivery_id(&event.tenant_id, &event.id, &endpoint.id);
            let sequence = match &resolved {
                Some(made) => made.sequence(),
                None => endpoint
                    .ordering
                    .and_then(|ordering| ordering.sequence(event)),
            };
            let pending = Delivery::pending(id, event, endpoint.id.clone(), resolved, now);
            deliveries.push(Delivery {
                sequence,
                ..pending
            });
        }
    }
    Ok(deliveries)
}
