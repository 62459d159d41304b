//! Queue and records on Redis, version 7 or newer.
//!
//! Everything of a tenant is in one of a fixed number of shards, and all keys of a shard are in one
//! slot of a cluster. Every transition is one call of a server-side function on one shard, see
//! `lua/`, so it happens whole or not at all. Due times, leases and the order of lists go by the
//! server's clock. The times that are only told (`updated_at`, an attempt's `at`) are of the host
//! that wrote them; a retry's wait is computed by the host's clock and counted from the server's, so
//! that clocks that differ do no harm.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::Value;
use tokio::sync::Mutex;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{DeliveryId, Event, EventId, Quota, TenantId};

mod absence;
mod beside;
mod calls;
mod check;
mod codec;
mod compression;
mod config;
mod connection;
mod enqueue;
mod fresh;
mod fullness;
mod functions;
mod keys;
mod kv;
mod layout;
mod lease;
mod list;
mod new_work;
mod offer;
mod outlook;
mod quotas;
mod record;
mod rejected;
mod reply;
mod requirements;
mod retain;
mod shares;
mod stream;
mod wake;
mod warnings;

pub use codec::{MAX_ATTEMPTS, MAX_EXCERPT};
pub use config::{InvalidSetting, MAX_SHARDS, RedisConfig, Sentinels, Tls, Topology};
pub use rejected::MAX_REJECTED;
pub use stream::RedisStream;

use crate::check::{CheckReport, CheckRequest};
use crate::error::StoreError;
use crate::queue::{
    Backlog, Batch, EventDeliveries, Filter, Fullness, LeaseRequest, LeaseToken, Leased, NewWork,
    Outcome, Page, Record, Recorded, RejectedEvent, Retention, Store,
};
use absence::Absence;
use beside::Beside;
use connection::Link;
use fresh::Fresh;
use functions::{Call, Functions};
use keys::Keys;
use offer::Offers;
use outlook::Outlook;
use retain::Round;
use shares::Shares;
use wake::{Listener, News};

/// At most this many events, outcomes or leases in one call, so that none holds up the server.
const CHUNK: usize = 512;
/// What a record takes in a call, in bytes, about: to make room for many at once.
const RECORD: usize = 384;

/// The store on Redis.
pub struct RedisStore {
    link: Link,
    functions: Functions,
    keys: Keys,
    channel: String,
    /// Marks this store's own messages on the channel.
    me: String,
    outlook: Arc<Outlook>,
    absence: Arc<Absence>,
    fresh: Fresh,
    /// For each shard the last lease that this host knows of: by calls for all its work, and for new work.
    heard: Vec<Mutex<Option<LeaseToken>>>,
    offers: Offers,
    shares: Shares,
    /// For each shard when events are written beside the calls that enqueue them.
    beside: Vec<Beside>,
    /// Who records outcomes while shards are on one server: it would work through the calls of all in one go while
    /// other clients wait.
    recording: Option<Mutex<()>>,
    /// What retention has still to look at.
    retaining: Mutex<Round>,
    _listener: Listener,
}

impl RedisStore {
    /// Connects within the time given, loads the functions and checks the number of shards.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "settings are made for the store that takes them"
    )]
    pub async fn connect(config: RedisConfig) -> Result<Self, StoreError> {
        let link = Link::connect(&config).await?;
        let is_cluster = link.is_cluster();
        let functions = Functions::new();
        functions.load(&link).await?;
        let keys = Keys::new(&config.prefix, config.shards);
        layout::agree(&link, &keys, &config).await?;
        let channel = keys.wake_channel();
        let me = format!("{:016x}", RandomState::new().build_hasher().finish());
        let outlook = Arc::new(Outlook::new(keys.shards()));
        let listener = Listener::start(
            link.clone(),
            channel.clone(),
            News::new(keys.clone(), me.clone(), Arc::clone(&outlook)),
        );
        let confirming = link.wait_timeout();
        let longest = link.response_timeout() + confirming;
        // One more for the list of refused events, which has a slot of its own.
        let absence = Absence::new(keys.shards() + 1, confirming, longest);
        Ok(Self {
            link,
            absence,
            functions,
            channel,
            me,
            outlook,
            fresh: Fresh::new(keys.shards()),
            shares: Shares::new(keys.shards()),
            recording: (!is_cluster).then(Mutex::default),
            retaining: Mutex::default(),
            heard: std::iter::repeat_with(Mutex::default)
                .take(2 * keys.shards())
                .collect(),
            offers: Offers::default(),
            beside: std::iter::repeat_with(Beside::default)
                .take(keys.shards())
                .collect(),
            keys,
            _listener: listener,
        })
    }

    fn call(&self, name: &'static str, shard: usize) -> Call {
        self.functions.call(name, shard, self.keys.shard(shard))
    }

    /// The last lease that this host heard of from a shard, of calls for new work or of the others.
    fn heard(&self, shard: usize, new: bool) -> &Mutex<Option<LeaseToken>> {
        &self.heard[2 * shard + usize::from(new)]
    }
    async fn shard_tenants(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.tenants(shard));
        self.link.query("SMEMBERS", &command).await
    }
}

// What this host has in flight of each shard.
impl RedisStore {
    /// A worker holds these.
    fn begin(&self, leased: &[Leased]) {
        self.shares.begin(self.shards_of(leased.iter()));
    }

    /// It does not any more.
    fn end<'a>(&self, leased: impl Iterator<Item = &'a Leased>) {
        self.shares.end(self.shards_of(leased));
    }

    fn shards_of<'a>(
        &self,
        leased: impl Iterator<Item = &'a Leased>,
    ) -> impl Iterator<Item = usize> {
        leased.map(|leased| self.keys.shard_of(&leased.delivery.tenant_id))
    }
}

fn micros(duration: Duration) -> u64 {
    // A year is longer than any lease or wait.
    const YEAR: u64 = 366 * 86_400 * 1_000_000;
    u64::try_from(duration.as_micros()).map_or(YEAR, |micros| micros.min(YEAR))
}

#[async_trait]
impl Store for RedisStore {
    fn parts(&self) -> usize {
        if self.link.is_cluster() {
            self.keys.shards()
        } else {
            1
        }
    }

    fn part_of(&self, tenant: &TenantId) -> usize {
        if self.link.is_cluster() {
            self.keys.shard_of(tenant)
        } else {
            0
        }
    }

    async fn enqueue(&self, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, StoreError> {
        self.enqueue_events(batch).await
    }

    async fn known(&self, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, StoreError> {
        self.known_events(events).await
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Batch, StoreError> {
        let batch = self.lease_due(request).await?;
        self.begin(&batch.leased);
        Ok(batch)
    }

    async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let recorded = self.record_outcomes(outcomes).await?;
        self.end(outcomes.iter().map(|outcome| &outcome.leased));
        Ok(recorded)
    }

    async fn release(&self, leases: &[Leased]) -> Result<(), StoreError> {
        self.release_leases(leases).await?;
        self.end(leases.iter());
        Ok(())
    }

    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError> {
        self.outlook.wait(timeout).await;
        Ok(())
    }

    fn new_work(&self) -> &dyn NewWork {
        self
    }

    async fn replay(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError> {
        self.replay_finished(tenant, delivery).await
    }

    async fn skip(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError> {
        self.skip_blocking(tenant, delivery).await
    }

    async fn get(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
    ) -> Result<Option<Record>, StoreError> {
        Ok(self.read(tenant, delivery).await?.map(|(_, record)| record))
    }

    async fn event(&self, tenant: &TenantId, event: &EventId) -> Result<Option<Event>, StoreError> {
        self.read_event(tenant, event).await
    }

    async fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        self.page(filter).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let shards = (0..self.keys.shards()).map(|shard| self.shard_tenants(shard));
        let mut tenants: Vec<TenantId> = try_join_all(shards)
            .await?
            .into_iter()
            .flatten()
            .filter_map(|name| TenantId::new(name).ok())
            .collect();
        tenants.sort();
        Ok(tenants)
    }

    async fn reject(&self, events: &[RejectedEvent]) -> Result<(), StoreError> {
        self.add_rejected(events).await
    }

    async fn rejected(&self, limit: usize) -> Result<Vec<RejectedEvent>, StoreError> {
        self.newest_rejected(limit).await
    }

    async fn retain(&self, retention: &Retention) -> Result<usize, StoreError> {
        self.retain_some(retention).await
    }

    async fn set_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError> {
        self.tell_quotas(quotas).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.backlog_of(|_| true).await
    }

    async fn fullness(&self) -> Result<Fullness, StoreError> {
        self.how_full().await
    }

    async fn check(&self, request: CheckRequest) -> Result<CheckReport, StoreError> {
        self.check_all(request).await
    }

    async fn claim_check(&self, every: Duration) -> Result<bool, StoreError> {
        self.claim(every).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        warnings::of(&self.link).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let _: Value = self.link.query("PING", &redis::cmd("PING")).await?;
        Ok(())
    }
}
