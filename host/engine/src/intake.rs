//! Intake: from what producers pushed to durable deliveries or kept rejections.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use wasmhook_core::label::safe_label;
use wasmhook_core::{Catalog, Delivery, Error, Event, EventDraft, EventId, TenantId};
use wasmhook_store::{EventDeliveries, RejectedEvent, Store, StoreError};

use crate::metric;
use crate::resolve::Resolver;

/// How many resolvers of one batch run at the same time.
const CONCURRENT_RESOLVERS: usize = 16;

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The Redis stream.
    Stream,
    /// `POST /v1/events`.
    Http,
    /// The command line, straight into the store.
    Cli,
}

impl Source {
    /// The name in rejected events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Http => "http",
            Self::Cli => "cli",
        }
    }
}

/// What became of one pushed event. Each is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its deliveries are in the queue. None, if no endpoint wants it.
    Enqueued {
        /// How many.
        deliveries: usize,
    },
    /// The tenant pushed an event of this id before.
    Duplicate,
    /// Refused and kept in the list of rejected events.
    Rejected {
        /// Machine-readable kind, see [`Error::code`].
        code: &'static str,
        /// Names field and rule.
        reason: String,
    },
}

/// Settings of intake.
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// Which event types exist.
    pub catalog: Catalog,
    /// The largest payload accepted, in bytes.
    pub max_payload: usize,
}

/// Validates events, dispatches them, and keeps what is refused.
pub struct Intake {
    config: IntakeConfig,
    resolver: Resolver,
    store: Arc<dyn Store>,
}

impl Intake {
    /// Dispatches into `store`.
    pub fn new(config: IntakeConfig, resolver: Resolver, store: Arc<dyn Store>) -> Self {
        Self {
            config,
            resolver,
            store,
        }
    }

    /// Takes a batch in. A refused event does not harm the others. The answers are in order; when
    /// this returns `Ok`, everything in them is durable. On `Err` nothing is known, and the batch may
    /// be pushed again without making second deliveries.
    pub async fn accept(
        &self,
        source: Source,
        drafts: Vec<Result<EventDraft, Error>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let now = jiff::Timestamp::now();
        let mut verdicts: Vec<Option<Verdict>> = vec![None; drafts.len()];
        let mut rejected = Vec::new();
        let mut events = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            let described = draft.as_ref().map(Describe::of).unwrap_or_default();
            match draft.and_then(|draft| self.check(draft, now)) {
                Ok(event) => events.push((index, event)),
                Err(error) => {
                    verdicts[index] = Some(reject(source, now, described, &error, &mut rejected));
                }
            }
        }

        let known = self.known(&events).await?;
        let planned: Vec<_> = stream::iter(events)
            .map(|(index, event)| {
                let known = known.get(&index).copied().unwrap_or(false);
                async move {
                    let deliveries = if known {
                        Ok(Vec::new())
                    } else {
                        self.resolver.deliveries(&event).await
                    };
                    (index, event, known, deliveries)
                }
            })
            .buffered(CONCURRENT_RESOLVERS)
            .collect()
            .await;

        let mut batch = Vec::with_capacity(planned.len());
        let mut indexes = Vec::with_capacity(planned.len());
        for (index, event, known, deliveries) in planned {
            match deliveries {
                Ok(_) if known => verdicts[index] = Some(Verdict::Duplicate),
                Ok(deliveries) => {
                    log(&event, &deliveries);
                    indexes.push(index);
                    batch.push(EventDeliveries {
                        event,
                        deliveries,
                        extends: false,
                    });
                }
                Err(error) => {
                    let described = Describe::event(&event);
                    verdicts[index] = Some(reject(source, now, described, &error, &mut rejected));
                }
            }
        }
        if !batch.is_empty() {
            let enqueued = self.store.enqueue(&batch).await?;
            for (index, enqueued) in indexes.into_iter().zip(enqueued) {
                verdicts[index] = Some(if enqueued.duplicate {
                    Verdict::Duplicate
                } else {
                    Verdict::Enqueued {
                        deliveries: enqueued.created,
                    }
                });
            }
        }
        if !rejected.is_empty() {
            self.store.reject(&rejected).await?;
        }
        let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
        count(&verdicts);
        Ok(verdicts)
    }

    fn check(&self, draft: EventDraft, now: jiff::Timestamp) -> Result<Event, Error> {
        let event = draft.accept(now, self.config.max_payload)?;
        self.config.catalog.check(&event)?;
        Ok(event)
    }

    /// Asks the store about events of tenants with a resolver only: for the others enqueueing twice
    /// is cheaper than asking.
    async fn known(&self, events: &[(usize, Event)]) -> Result<HashMap<usize, bool>, StoreError> {
        let asked: Vec<_> = events
            .iter()
            .filter(|(_, event)| self.resolver.applies(event))
            .collect();
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<(TenantId, EventId)> = asked
            .iter()
            .map(|(_, event)| (event.tenant_id.clone(), event.id.clone()))
            .collect();
        let known = self.store.known(&ids).await?;
        Ok(asked
            .into_iter()
            .map(|(index, _)| *index)
            .zip(known)
            .collect())
    }
}

fn log(event: &Event, deliveries: &[Delivery]) {
    if deliveries.is_empty() {
        tracing::info!(
            tenant = %event.tenant_id, event = %event.id, event_type = %event.event_type,
            "no endpoint wants the event"
        );
    }
    for delivery in deliveries {
        tracing::debug!(
            tenant = %event.tenant_id, event = %event.id, delivery = %delivery.id,
            endpoint = %delivery.endpoint_id, "enqueueing"
        );
    }
}

/// What a rejected event is described by. Bounded, and without the payload.
#[derive(Default)]
struct Describe {
    id: String,
    tenant: String,
    event_type: String,
    payload_bytes: usize,
}

impl Describe {
    fn of(draft: &EventDraft) -> Self {
        let label = |text: &str| {
            if text.trim().is_empty() {
                String::new()
            } else {
                safe_label(text)
            }
        };
        Self {
            id: label(&draft.id),
            tenant: label(&draft.tenant),
            event_type: label(&draft.event_type),
            payload_bytes: draft.payload.len(),
        }
    }

    fn event(event: &Event) -> Self {
        Self {
            id: safe_label(event.id.as_str()),
            tenant: safe_label(event.tenant_id.as_str()),
            event_type: safe_label(event.event_type.as_str()),
            payload_bytes: event.payload.len(),
        }
    }
}

fn reject(
    source: Source,
    at: jiff::Timestamp,
    described: Describe,
    error: &Error,
    rejected: &mut Vec<RejectedEvent>,
) -> Verdict {
    let reason = error.to_string();
    tracing::warn!(
        tenant = described.tenant,
        event = described.id,
        source = source.as_str(),
        error = reason,
        "the event was rejected"
    );
    rejected.push(RejectedEvent {
        at,
        source: source.as_str().to_owned(),
        event_id: described.id,
        tenant: described.tenant,
        event_type: described.event_type,
        payload_bytes: described.payload_bytes,
        code: error.code().to_owned(),
        reason: reason.clone(),
    });
    Verdict::Rejected {
        code: error.code(),
        reason,
    }
}

fn count(verdicts: &[Verdict]) {
    for verdict in verdicts {
        let fate = match verdict {
            Verdict::Enqueued { deliveries: 0 } => "unmatched",
            Verdict::Enqueued { .. } => "enqueued",
            Verdict::Duplicate => "duplicate",
            Verdict::Rejected { .. } => "rejected",
        };
        metrics::counter!(metric::EVENTS, "fate" => fate).increment(1);
    }
}
