//! What the host asks of a store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wasmhook_core::attempt::Attempt;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, DeliveryId, DeliveryState, Event, EventId, Quota, TenantId};

use crate::check::{CheckReport, CheckRequest};
use crate::error::StoreError;

/// An event and its deliveries, to be written in one atomic step.
#[derive(Debug, Clone)]
pub struct EventDeliveries {
    /// The event; its payload is kept once however many deliveries there are.
    pub event: Event,
    /// Its pending deliveries. Their times are replaced by the store's own, but for one: a
    /// [scheduled](Delivery::is_scheduled) delivery is due at its `next_at` by the store's clock, and at
    /// once if that clock is past it already.
    ///
    /// That time is not turned into a wait, as a retry's is. A wait is right where the host means "so
    /// long after what just happened"; here a producer named a moment, and of the clocks that may take
    /// part in it (its own, those of many hosts, the store's) only the store's is one for all: an event
    /// is then due at the same moment whichever host took it in and however long that took, and what is
    /// shown is what was asked for.
    pub deliveries: Vec<Delivery>,
    /// False, as for every event from a producer: an event id that is known changes nothing. True
    /// when a resolver plugin that failed at first has answered at last: the deliveries are added to
    /// the known event, those whose id exists are left alone, and the answer is never a duplicate.
    pub extends: bool,
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// At most this many deliveries.
    pub max: usize,
    /// How long the worker may hold them, by the store's clock.
    pub duration: Duration,
    /// At most this many deliveries in flight for one endpoint, over all hosts; fewer while it stalls, see
    /// [`Backlog::stalling_endpoints`].
    pub max_per_endpoint: usize,
}

/// Fences a lease: only who holds the token of the lease in force can record or release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken(pub Arc<str>);

/// A delivery that a worker owns for a while.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The delivery as it was before the lease (`pending` or `failed`).
    pub delivery: Delivery,
    /// Its event.
    pub event: Event,
    /// The attempts recorded so far, for the store to hand back with the outcome.
    pub attempts: Vec<Attempt>,
    /// Proof of ownership.
    pub token: LeaseToken,
}

/// What a lease call brought.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The deliveries leased, fair by tenant first and by endpoint second.
    pub leased: Vec<Leased>,
    /// How long until the next delivery that is not yet due becomes due or the next lease expires;
    /// `None` when nothing waits. When something was leased this may be up to 100 ms late, or earlier
    /// than anything becomes due: a store need not look everywhere while it finds work.
    pub next_due: Option<Duration>,
}

/// The outcome of one lease: the delivery after [`Delivery::concluded`], and the attempt.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The lease it ends, with the delivery as it was leased.
    pub leased: Leased,
    /// The delivery as it is to be: succeeded, failed with a next time, or dead letter.
    pub delivery: Delivery,
    /// What happened. Its `next_at` is set by who concludes. A delivery that is only to wait longer has its
    /// last attempt here again, with its number, taken out of `leased.attempts`.
    pub attempt: Attempt,
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Attempt and state were written in one step.
    Written,
    /// The lease was no longer in force; nothing was written, and that is harmless.
    LeaseLost,
}

/// A delivery with everything that is known of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The delivery; `leased` while a worker holds it.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// Its attempts, oldest first; the store may keep only the first and the latest of very many.
    pub attempts: Vec<Attempt>,
    /// When the lease ends, while leased.
    pub lease_until: Option<Timestamp>,
    /// Whose turn it is in the sequence where this one waits for its own. Told of one delivery, not in
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<DeliveryId>,
    /// Whether its endpoint gives no answer in time, so that few of its deliveries are attempted at once
    /// (`stalling.rs`). Told of one delivery that is open, not in lists; of an embedded store only the host that has
    /// it open knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub endpoint_stalls: bool,
}

/// Which deliveries to list. Newest first.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: TenantId,
    /// In this state, or in any.
    pub state: Option<DeliveryState>,
    /// From where the previous page ended.
    pub cursor: Option<Cursor>,
    /// At most this many.
    pub limit: usize,
}

/// Where a page ended. Opaque: valid for the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The deliveries.
    pub records: Vec<Record>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// An event that was refused, kept so that nothing is dropped in silence. It holds no payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedEvent {
    /// When.
    pub at: Timestamp,
    /// Where it came from: `stream`, `http` or `cli`.
    pub source: String,
    /// The id as pushed, cut to a bounded label; empty if there was none.
    pub event_id: String,
    /// The tenant as pushed, cut to a bounded label; empty if there was none.
    pub tenant: String,
    /// The type as pushed, cut to a bounded label; empty if there was none.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Size of the payload, in bytes.
    pub payload_bytes: usize,
    /// The machine-readable kind of refusal, see [`wasmhook_core::Error::code`].
    pub code: String,
    /// The reason, naming field and rule.
    pub reason: String,
}

/// How long finished deliveries are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Older ones are removed.
    pub age: Duration,
    /// At most this many finished deliveries per tenant are kept.
    pub count: usize,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Pending or failed deliveries.
    pub waiting: u64,
    /// Leased deliveries.
    pub leased: u64,
    /// Succeeded deliveries still kept.
    pub succeeded: u64,
    /// Dead letters still kept.
    pub dead_letter: u64,
    /// Endpoints whose attempts lately failed after more than a second, or got no answer in time: the more of them
    /// in a row, the fewer of its deliveries are leased at a time, until it answers. An embedded store tells it to
    /// the host only.
    pub stalling_endpoints: u64,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fullness {
    /// Pending, failed and leased deliveries.
    pub waiting: u64,
    /// How much of the memory that the store may use it uses, in percent; the most of any server.
    /// `None` where there is no such limit.
    pub memory_percent: Option<u8>,
    /// Bytes that the store takes, of memory on Redis (of all its servers, whatever else they hold), of
    /// its file when embedded. `None` where the server does not tell.
    pub bytes: Option<u64>,
}

/// The queue and the records.
///
/// Deliveries to one endpoint with one [`Sequence`](wasmhook_core::Sequence) name are leased one after the
/// other, in the order of their creation: whoever records the end of one (success, or a dead letter that
/// does not block) lets the next go in the same atomic step. A delivery that waits for its time or for
/// another attempt keeps its turn. A replayed one takes its old place, before those that were created
/// later and have not been leased yet, and waits while it is another's turn.
///
/// Every method is one atomic step per event or per delivery and may be
/// repeated after a lost answer without harm. Time is the store's own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// In how many parts the store is that fail one by one, as the shards of a cluster do. A call about
    /// tenants of one part needs that part only, and one about tenants of several fails if one of them does.
    fn parts(&self) -> usize {
        1
    }

    /// In which of the [parts](Self::parts), counted from 0, everything of a tenant is.
    fn part_of(&self, _tenant: &TenantId) -> usize {
        0
    }

    /// Writes events with their deliveries, each event in one atomic step, and returns once they
    /// are durable. An event id that the tenant used before is a duplicate and changes nothing.
    /// The answers are in the order of the batch.
    async fn enqueue(&self, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, StoreError>;

    /// Which of these events are known already, in order. Lets intake skip the tenant's resolver.
    async fn known(&self, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, StoreError>;

    /// Leases due deliveries, putting back first what leases have expired.
    async fn lease(&self, request: &LeaseRequest) -> Result<Batch, StoreError>;

    /// Records attempts and next states, fenced by the lease tokens, each in one atomic step. The
    /// answers are in the order of the batch.
    async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError>;

    /// Gives leases back unused; the deliveries are due at once. Lost leases are ignored.
    async fn release(&self, leases: &[Leased]) -> Result<(), StoreError>;

    /// Returns when there may be due work, or after `timeout`. May return early.
    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError>;

    /// New work apart from the rest.
    fn new_work(&self) -> &dyn NewWork;

    /// Makes a finished delivery pending and due, once it is its turn in its sequence, if it is in one. [`StoreError::NotFound`] when this tenant has no
    /// such delivery, [`StoreError::NotFinished`] when it is not finished.
    async fn replay(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError>;

    /// Lets a sequence go on that this dead letter blocks. It is an ordinary dead letter then, kept as
    /// long as any. [`StoreError::NotFound`] when this tenant has no such delivery,
    /// [`StoreError::NotBlocking`] when it blocks nothing.
    async fn skip(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError>;

    /// One delivery of a tenant.
    async fn get(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
    ) -> Result<Option<Record>, StoreError>;

    /// The event of a delivery, while it is kept.
    async fn event(&self, tenant: &TenantId, event: &EventId) -> Result<Option<Event>, StoreError>;

    /// A page of a tenant's deliveries.
    async fn list(&self, filter: &Filter) -> Result<Page, StoreError>;

    /// Tenants that have deliveries, in order.
    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError>;

    /// Keeps refused events, the newest of them only (a fixed bound, documented by the store).
    async fn reject(&self, events: &[RejectedEvent]) -> Result<(), StoreError>;

    /// The newest refused events, newest first.
    async fn rejected(&self, limit: usize) -> Result<Vec<RejectedEvent>, StoreError>;

    /// Removes finished deliveries past their retention, a bounded number per call; returns how
    /// many, so that the caller can go on while it is not zero.
    async fn retain(&self, retention: &Retention) -> Result<usize, StoreError>;

    /// Sets what tenants may take; those that are not named may take what they can. Cheap when nothing
    /// changes. Work in flight is counted at once, and leases keep to a new cap from then on.
    async fn set_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError>;

    /// How much waits and is kept.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// How full the store is; cheap enough to be asked every second.
    async fn fullness(&self) -> Result<Fullness, StoreError>;

    /// Proves the store's invariants while hosts work: every open delivery is in exactly one place, all
    /// that is due can be leased, counts and indexes agree with the records. Reads everything, in
    /// bounded pieces. With `repair` it mends what it finds, each in one atomic step that looks again
    /// before it acts; two repairs at once do no harm.
    async fn check(&self, request: CheckRequest) -> Result<CheckReport, StoreError>;

    /// True for one of all hosts that ask within each `every`: so that they check in turn what they
    /// share.
    async fn claim_check(&self, every: Duration) -> Result<bool, StoreError>;

    /// Sentences about settings of the store that could lose data, for the log at start.
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;

    /// Asks the store for a sign of life.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The work of tenants that had none before, for a worker that keeps some of its places for them: who pushes
/// one event is not to wait until one is free of those whose events fill the host.
#[async_trait]
pub trait NewWork: Send + Sync {
    /// Returns when a tenant may have work that had none, or after `timeout`. May return early. What this store
    /// is given to enqueue meanwhile it may lease by the same step, as `lease` does: that is what is returned.
    /// To be awaited to its end, which [`NewWork::interrupt`] brings: who drops it instead may lose that until the
    /// lease ends.
    async fn wait(&self, request: &LeaseRequest, light: usize, timeout: Duration) -> Vec<Leased>;

    /// Lets who waits return now.
    fn interrupt(&self);

    /// Leases as [`Store::lease`] does, but only such work that this store has heard of, and for no endpoint
    /// more than come to `light` in flight.
    async fn lease(&self, request: &LeaseRequest, light: usize) -> Vec<Leased>;

    /// Returns when there may be due work that is for [`Store::lease`], or after `timeout`. May return early.
    async fn wait_for_rest(&self, timeout: Duration);
}
