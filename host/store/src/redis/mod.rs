//! Queue and records on Redis, version 7 or newer.
//!
//! Everything of a tenant is in one of a fixed number of shards, and all keys of a shard are in one
//! slot of a cluster. Every transition is one call of a server-side function on one shard, see
//! `queue.lua`, so it happens whole or not at all. Due times, leases and the order of lists go by the
//! server's clock. The times that are only told (`updated_at`, an attempt's `at`) are of the host
//! that wrote them; a retry's wait is computed by the host's clock and counted from the server's, so
//! that clocks that differ do no harm.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use redis::Value;
use tokio::sync::Mutex;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{DeliveryId, Event, EventId, Quota, TenantId};

mod absence;
mod check;
mod codec;
mod compression;
mod config;
mod connection;
mod enqueue;
mod fresh;
mod functions;
mod keys;
mod kv;
mod lease;
mod list;
mod memory;
mod new_work;
mod offer;
mod outlook;
mod record;
mod reply;
mod requirements;
mod stream;
mod wake;
mod warnings;

pub use codec::{MAX_ATTEMPTS, MAX_EXCERPT};
pub use config::{InvalidSetting, MAX_SHARDS, RedisConfig, Sentinels, Tls, Topology};
pub use stream::RedisStream;

use crate::check::{CheckReport, CheckRequest};
use crate::error::StoreError;
use crate::queue::{
    Backlog, Batch, EventDeliveries, Filter, Fullness, LeaseRequest, LeaseToken, Leased, NewWork,
    Outcome, Page, Record, Recorded, RejectedEvent, Retention, Store,
};
use absence::Absence;
use connection::Link;
use fresh::Fresh;
use functions::{Call, Functions};
use keys::Keys;
use memory::ServerMemory;
use offer::Offers;
use outlook::Outlook;
use reply::Reply;
use wake::{Listener, News};

/// How many refused events are kept.
pub const MAX_REJECTED: usize = 10_000;

/// The form of keys and records; raised with every change that older hosts cannot read. Layout 2 has
/// sequences, and is otherwise layout 1.
const LAYOUT: u16 = 2;
/// At most this many events, outcomes or leases in one call, so that none holds up the server.
const CHUNK: usize = 512;
/// At most this many bytes of payload in one enqueue call, unless a single event has more.
const CHUNK_BYTES: usize = 4 << 20;
/// Finished deliveries looked at per call of retention.
const RETAIN_SCAN: usize = 1000;
/// Tenants per call of retention.
const RETAIN_TENANTS: usize = 200;

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
    turn: AtomicUsize,
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
        let functions = Functions::new();
        functions.load(&link).await?;
        let keys = Keys::new(&config.prefix, config.shards);
        check_shards(&link, &keys, &config).await?;
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
            heard: std::iter::repeat_with(Mutex::default)
                .take(2 * keys.shards())
                .collect(),
            offers: Offers::default(),
            keys,
            turn: AtomicUsize::new(0),
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

    async fn run(&self, name: &'static str, call: &Call) -> Result<Reply, StoreError> {
        let shard = call.about();
        let patience = if call.holds_up() {
            self.absence.patience(shard)
        } else {
            Duration::MAX
        };
        let running = self.functions.run(&self.link, call);
        let value = self.on_shard(shard, patience, running).await?;
        Reply::new(value).ok_or_else(|| self.link.unexpected(name))
    }

    /// Does something that only one shard is needed for, or, under the number after theirs, the list of
    /// refused events. In a cluster one that is away is not waited for,
    /// and others wait no longer than `patience` to find that it is.
    async fn on_shard<T>(
        &self,
        shard: usize,
        patience: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !self.link.is_cluster() {
            return work.await;
        }
        let unavailable = |reason: String| StoreError::Unavailable {
            store: self.link.name().to_owned(),
            reason,
        };
        if self.absence.is_away(shard) {
            return Err(unavailable(format!("shard {shard} does not answer")));
        }
        let answer = tokio::time::timeout(patience, work)
            .await
            .unwrap_or_else(|_| {
                self.absence.slow(shard);
                Err(unavailable(format!(
                    "shard {shard} has not answered within {patience:?}"
                )))
            });
        match &answer {
            Err(error @ StoreError::Unavailable { .. }) => {
                let question = if shard < self.keys.shards() {
                    self.call("backlog", shard).into_command()
                } else {
                    let mut command = redis::cmd("EXISTS");
                    command.arg(self.keys.rejected());
                    command
                };
                self.absence
                    .away(shard, error, &self.link, question, &self.outlook);
            }
            _ => self.absence.answered(shard),
        }
        answer
    }

    /// Runs `calls`, shards at once and the calls of one shard in order, and hands each reply with
    /// the places it is about to `each`.
    async fn run_all(
        &self,
        name: &'static str,
        calls: Vec<Vec<(Vec<usize>, Call)>>,
        mut each: impl FnMut(&[usize], Reply) -> Option<()>,
    ) -> Result<(), StoreError> {
        let shards = calls.into_iter().filter(|calls| !calls.is_empty());
        let answers = try_join_all(shards.map(|calls| async move {
            let mut replies = Vec::with_capacity(calls.len());
            for (places, call) in calls {
                let reply = self.run(name, &call).await?;
                replies.push((places, reply));
            }
            Ok::<_, StoreError>(replies)
        }))
        .await?;
        for (places, reply) in answers.into_iter().flatten() {
            each(&places, reply).ok_or_else(|| self.link.unexpected(name))?;
        }
        Ok(())
    }

    /// Groups `items` by shard and puts them into calls; `write` adds one to a call and says how
    /// large it is. With `wakes`, each call begins with the channel and this store's mark.
    fn group<'a, T>(
        &self,
        name: &'static str,
        items: &'a [T],
        wakes: bool,
        tenant: impl Fn(&'a T) -> &'a TenantId,
        mut write: impl FnMut(&mut Call, &T) -> usize,
    ) -> Vec<Vec<(Vec<usize>, Call)>> {
        let mut calls: Vec<Vec<(Vec<usize>, Call)>> = Vec::new();
        calls.resize_with(self.keys.shards(), Vec::new);
        let mut sizes = vec![0; self.keys.shards()];
        for (place, item) in items.iter().enumerate() {
            let shard = self.keys.shard_of(tenant(item));
            let full = calls[shard]
                .last()
                .is_none_or(|(places, _)| places.len() >= CHUNK || sizes[shard] >= CHUNK_BYTES);
            if full {
                let mut call = self.call(name, shard);
                if wakes {
                    call.arg(&self.channel).arg(&self.me);
                }
                calls[shard].push((Vec::new(), call));
                sizes[shard] = 0;
            }
            if let Some((places, call)) = calls[shard].last_mut() {
                places.push(place);
                sizes[shard] += write(call, item);
            }
        }
        calls
    }

    /// Removes what is past its retention in one shard, age in ms, until it is all gone or enough was done;
    /// `before` is how many others have lost.
    async fn retain_in(
        &self,
        shard: usize,
        age: u64,
        count: usize,
        before: usize,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        let tenants = self
            .on_shard(shard, Duration::MAX, self.shard_tenants(shard))
            .await?;
        for tenants in tenants.chunks(RETAIN_TENANTS) {
            loop {
                let mut call = self.call("retain", shard);
                call.arg(age).arg(count).arg(RETAIN_SCAN).arg(tenants);
                let mut reply = self.run("retain", &call).await?;
                let unexpected = || self.link.unexpected("retain");
                let gone = reply.int().ok_or_else(unexpected)?;
                let looked = reply.int().ok_or_else(unexpected)?;
                removed += usize::try_from(gone).map_err(|_| unexpected())?;
                if before + removed >= RETAIN_SCAN {
                    return Ok(removed);
                }
                if usize::try_from(looked).map_err(|_| unexpected())? < RETAIN_SCAN {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// How full the server of a shard is, if it tells.
    async fn server_memory(&self, shard: usize) -> Result<Option<ServerMemory>, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg("server").arg("memory");
        let answer = self.link.raw_at(self.keys.shard(shard), &command).await;
        let answer = match answer {
            // A user that may not ask is not worse off than on a server without a limit.
            Err(error) if Link::is_forbidden(&error) => return Ok(None),
            answer => answer.map_err(|error| self.link.failure("INFO", &error))?,
        };
        let text = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => return Err(self.link.unexpected("INFO")),
        };
        Ok(ServerMemory::read(&text))
    }

    /// How much is in these shards.
    async fn backlog_of(&self, asked: impl Fn(usize) -> bool) -> Result<Backlog, StoreError> {
        let calls: Vec<_> = (0..self.keys.shards())
            .filter(|shard| asked(*shard))
            .map(|shard| self.call("backlog", shard))
            .collect();
        let replies = try_join_all(calls.iter().map(|call| self.run("backlog", call))).await?;
        let mut sum = Backlog::default();
        for mut reply in replies {
            let mut count = || {
                let number = reply.int().and_then(|number| u64::try_from(number).ok());
                number.ok_or_else(|| self.link.unexpected("backlog"))
            };
            let (open, leased) = (count()?, count()?);
            sum.waiting += open.saturating_sub(leased);
            sum.leased += leased;
            sum.succeeded += count()?;
            sum.dead_letter += count()?;
        }
        Ok(sum)
    }

    async fn shard_tenants(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.tenants(shard));
        self.link.query("SMEMBERS", &command).await
    }
}

/// Checks what every host of a deployment must agree on, and sets it where nothing is set yet.
async fn check_shards(link: &Link, keys: &Keys, config: &RedisConfig) -> Result<(), StoreError> {
    let meta = keys.meta();
    let mut pipeline = redis::pipe();
    for (field, value) in [("shards", config.shards), ("layout", LAYOUT)] {
        pipeline
            .cmd("HSETNX")
            .arg(&meta)
            .arg(field)
            .arg(value)
            .ignore();
    }
    pipeline.cmd("HMGET").arg(&meta).arg("shards").arg("layout");
    let ((kept, mut layout),): ((String, String),) = link.pipeline("HMGET", &pipeline).await?;
    if layout == "1" {
        upgrade(link, keys).await?;
        layout = LAYOUT.to_string();
    }
    if layout != LAYOUT.to_string() {
        return Err(StoreError::Configuration(format!(
            "{} holds a queue of layout {layout} under the prefix {}, but this version knows layout {LAYOUT}; use the version that made it, or another prefix",
            link.name(),
            config.prefix
        )));
    }
    if kept == config.shards.to_string() {
        return Ok(());
    }
    Err(StoreError::Configuration(format!(
        "{} holds a queue of {kept} shards under the prefix {}, but {} are configured; configure {kept}, or another prefix",
        link.name(),
        config.prefix,
        config.shards
    )))
}

/// Makes layout 2 of layout 1. Hosts of the older version do not start any more. Those that are running do
/// no harm: what is in a sequence they cannot read, so they leave it for others when its lease ends; and
/// their turn to check and repair the queue is taken for good.
async fn upgrade(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    let mut turn = redis::cmd("SET");
    turn.arg(keys.checked_before_sequences()).arg(LAYOUT);
    let _: Value = link.query("SET", &turn).await?;
    let mut layout = redis::cmd("HSET");
    layout.arg(keys.meta()).arg("layout").arg(LAYOUT);
    let _: Value = link.query("HSET", &layout).await?;
    tracing::info!("the queue is of layout {LAYOUT} now; older hosts can no longer start on it");
    Ok(())
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
        self.lease_due(request).await
    }

    async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        self.record_outcomes(outcomes).await
    }

    async fn release(&self, leases: &[Leased]) -> Result<(), StoreError> {
        self.release_leases(leases).await
    }

    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError> {
        self.outlook.wait(timeout).await;
        Ok(())
    }

    fn new_work(&self) -> Option<&dyn NewWork> {
        Some(self)
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
        if events.is_empty() {
            return Ok(());
        }
        let key = self.keys.rejected();
        let skip = events.len().saturating_sub(MAX_REJECTED);
        let mut pipeline = redis::pipe();
        for events in events[skip..].chunks(1000) {
            let push = pipeline.cmd("LPUSH").arg(&key);
            for event in events {
                push.arg(serde_json::to_string(event).unwrap_or_default());
            }
            push.ignore();
        }
        pipeline
            .cmd("LTRIM")
            .arg(&key)
            .arg(0)
            .arg(MAX_REJECTED - 1)
            .ignore();
        let list = self.keys.shards();
        let patience = self.absence.patience(list);
        let writing = self.link.write("LPUSH", &pipeline);
        self.on_shard(list, patience, writing).await
    }

    async fn rejected(&self, limit: usize) -> Result<Vec<RejectedEvent>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("LRANGE");
        command
            .arg(self.keys.rejected())
            .arg(0)
            .arg(limit.min(MAX_REJECTED) - 1);
        let lines: Vec<Vec<u8>> = self.link.query("LRANGE", &command).await?;
        // A line of a newer version may be of another form; the others are still worth reading.
        Ok(lines
            .iter()
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    async fn retain(&self, retention: &Retention) -> Result<usize, StoreError> {
        let age = micros(retention.age) / 1000;
        let (mut removed, mut failed) = (0, None);
        for shard in 0..self.keys.shards() {
            match self.retain_in(shard, age, retention.count, removed).await {
                Ok(more) => removed += more,
                // The others are not to fill up meanwhile.
                Err(error @ StoreError::Unavailable { .. }) if self.link.is_cluster() => {
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
            if removed >= RETAIN_SCAN {
                return Ok(removed);
            }
        }
        match failed {
            Some(error) if removed == 0 => Err(error),
            _ => Ok(removed),
        }
    }

    async fn set_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError> {
        let mut calls: Vec<_> = (0..self.keys.shards())
            .map(|shard| {
                let mut call = self.call("quotas", shard);
                call.arg(&self.channel).arg(&self.me);
                call
            })
            .collect();
        for (tenant, quota) in quotas {
            if quota.is_default() {
                continue;
            }
            let most = quota.max_in_flight;
            let most = most.map_or_else(String::new, |most| most.to_string());
            let call = &mut calls[self.keys.shard_of(tenant)];
            call.arg(tenant.as_str());
            call.arg(format!("{}:{most}", quota.weight.get()));
        }
        // Shards that answer are told, though others do not.
        let replies = join_all(calls.iter().map(|call| self.run("quotas", call))).await;
        let mut failed = None;
        for (shard, reply) in replies.into_iter().enumerate() {
            let mut reply = match reply {
                Ok(reply) => reply,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if reply.int().is_some_and(|changed| changed > 0) {
                self.outlook.work(shard);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.backlog_of(|_| true).await
    }

    async fn fullness(&self) -> Result<Fullness, StoreError> {
        // What is in a shard that is away can grow no more; the others are not to be judged by it.
        let backlog = self
            .backlog_of(|shard| !self.absence.is_away(shard))
            .await?;
        let mut servers: Vec<ServerMemory> = Vec::new();
        for shard in 0..self.keys.shards() {
            if self.absence.is_away(shard) {
                continue;
            }
            if let Some(server) = self.server_memory(shard).await?
                && servers.iter().all(|known| known.run_id != server.run_id)
            {
                servers.push(server);
            }
            if !self.link.is_cluster() {
                break;
            }
        }
        Ok(Fullness {
            waiting: backlog.waiting + backlog.leased,
            memory_percent: servers.iter().filter_map(ServerMemory::percent).max(),
            bytes: (!servers.is_empty()).then(|| servers.iter().map(|server| server.used).sum()),
        })
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
