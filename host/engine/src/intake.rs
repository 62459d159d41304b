//! Intake: from what producers pushed to durable deliveries or kept rejections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
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

/// What became of a batch.
#[derive(Debug)]
pub struct Taken {
    /// In the order of the batch; `None` where it is not known, because a part of the store failed. Such an
    /// event may be pushed again without making second deliveries.
    pub verdicts: Vec<Option<Verdict>>,
    /// The parts of the store that failed. The number after theirs is the list of refused events.
    pub failures: Vec<(usize, StoreError)>,
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

    /// In how many parts the store is that fail one by one.
    pub(crate) fn parts(&self) -> usize {
        self.store.parts()
    }

    /// The part of the store that an event goes to; any for one that will be refused.
    pub(crate) fn part_of(&self, draft: &EventDraft) -> usize {
        let tenant = TenantId::new(draft.tenant.trim());
        tenant.map_or(0, |tenant| self.store.part_of(&tenant))
    }

    /// Takes a batch in. A refused event does not harm the others, nor does a part of the store that fails
    /// harm events of other parts. Every verdict is of something durable.
    pub async fn accept(&self, source: Source, drafts: Vec<Result<EventDraft, Error>>) -> Taken {
        let now = jiff::Timestamp::now();
        let mut verdicts: Vec<Option<Verdict>> = vec![None; drafts.len()];
        let mut failures = Vec::new();
        let mut rejected = Rejected::new(source, now);
        let mut events = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            let described = draft.as_ref().map(Describe::of).unwrap_or_default();
            match draft.and_then(|draft| self.check(draft, now)) {
                Ok(event) => events.push((index, event)),
                Err(error) => rejected.add(index, described, &error),
            }
        }

        let known = self.known(&events, &mut failures).await;
        let failed: HashSet<usize> = failures.iter().map(|(part, _)| *part).collect();
        events.retain(|(_, event)| !failed.contains(&self.store.part_of(&event.tenant_id)));
        let planned: Vec<_> = stream::iter(events)
            .map(|(index, event)| {
                let known = known.contains(&index);
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

        let mut batches: BTreeMap<usize, (Vec<usize>, Vec<EventDeliveries>)> = BTreeMap::new();
        for (index, event, known, deliveries) in planned {
            match deliveries {
                Ok(_) if known => verdicts[index] = Some(Verdict::Duplicate),
                Ok(deliveries) => {
                    log(&event, &deliveries);
                    let part = self.store.part_of(&event.tenant_id);
                    let (indexes, batch) = batches.entry(part).or_default();
                    indexes.push(index);
                    batch.push(EventDeliveries {
                        event,
                        deliveries,
                        extends: false,
                    });
                }
                Err(error) => rejected.add(index, Describe::event(&event), &error),
            }
        }
        let enqueuing = batches
            .into_iter()
            .map(|(part, (indexes, batch))| async move {
                (part, indexes, self.store.enqueue(&batch).await)
            });
        for (part, indexes, enqueued) in join_all(enqueuing).await {
            match enqueued {
                Ok(enqueued) => {
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
                Err(error) => failures.push((part, error)),
            }
        }
        if !rejected.events.is_empty() {
            match self.store.reject(&rejected.events).await {
                Ok(()) => {
                    for (index, verdict) in rejected.verdicts {
                        verdicts[index] = Some(verdict);
                    }
                }
                Err(error) => failures.push((self.parts(), error)),
            }
        }
        count(verdicts.iter().flatten());
        Taken { verdicts, failures }
    }

    fn check(&self, draft: EventDraft, now: jiff::Timestamp) -> Result<Event, Error> {
        let event = draft.accept(now, self.config.max_payload)?;
        self.config.catalog.check(&event)?;
        Ok(event)
    }

    /// The places of events that are known already. Asks the store about events of tenants with a resolver
    /// only: for the others enqueueing twice is cheaper than asking.
    async fn known(
        &self,
        events: &[(usize, Event)],
        failures: &mut Vec<(usize, StoreError)>,
    ) -> HashSet<usize> {
        type Asked = (Vec<usize>, Vec<(TenantId, EventId)>);
        let mut parts: HashMap<usize, Asked> = HashMap::new();
        for (index, event) in events {
            if self.resolver.applies(event) {
                let part = self.store.part_of(&event.tenant_id);
                let (indexes, ids) = parts.entry(part).or_default();
                indexes.push(*index);
                ids.push((event.tenant_id.clone(), event.id.clone()));
            }
        }
        let asking = parts.into_iter().map(|(part, (indexes, ids))| async move {
            (part, indexes, self.store.known(&ids).await)
        });
        let mut all = HashSet::new();
        for (part, indexes, known) in join_all(asking).await {
            match known {
                Ok(known) => {
                    let indexes = indexes.into_iter().zip(known);
                    all.extend(indexes.filter(|(_, known)| *known).map(|(index, _)| index));
                }
                Err(error) => failures.push((part, error)),
            }
        }
        all
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

/// The refused events of a batch.
struct Rejected {
    source: Source,
    at: jiff::Timestamp,
    events: Vec<RejectedEvent>,
    /// With their places in the batch.
    verdicts: Vec<(usize, Verdict)>,
}

impl Rejected {
    fn new(source: Source, at: jiff::Timestamp) -> Self {
        Self {
            source,
            at,
            events: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    fn add(&mut self, index: usize, described: Describe, error: &Error) {
        let (code, reason) = (error.code(), error.to_string());
        tracing::warn!(
            tenant = described.tenant,
            event = described.id,
            source = self.source.as_str(),
            error = reason,
            "the event was rejected"
        );
        self.events.push(RejectedEvent {
            at: self.at,
            source: self.source.as_str().to_owned(),
            event_id: described.id,
            tenant: described.tenant,
            event_type: described.event_type,
            payload_bytes: described.payload_bytes,
            code: code.to_owned(),
            reason: reason.clone(),
        });
        self.verdicts
            .push((index, Verdict::Rejected { code, reason }));
    }
}

fn count<'a>(verdicts: impl Iterator<Item = &'a Verdict>) {
    let mut fates: BTreeMap<&'static str, u64> = BTreeMap::new();
    for verdict in verdicts {
        let fate = match verdict {
            Verdict::Enqueued { deliveries: 0 } => "unmatched",
            Verdict::Enqueued { .. } => "enqueued",
            Verdict::Duplicate => "duplicate",
            Verdict::Rejected { .. } => "rejected",
        };
        *fates.entry(fate).or_default() += 1;
    }
    for (fate, count) in fates {
        metrics::counter!(metric::EVENTS, "fate" => fate).increment(count);
    }
}
