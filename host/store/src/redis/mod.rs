//! Queue and records on Redis, version 7 or newer.
//!
//! Everything of a tenant is in one of a fixed number of shards, and all keys of a shard are in one
//! slot of a cluster. Every transition is one call of a server-side function on one shard, see
//! `queue.lua`, so it happens whole or not at all. Due times, leases and the order of lists go by the
//! server's clock. The times that are only told (`updated_at`, an attempt's `at`) are of the host
//! that wrote them; a retry's wait is computed by the host's clock and counted from the server's, so
//! that clocks that differ do no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use redis::Value;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, DeliveryId, DeliveryState, Event, EventId, TenantId};

mod codec;
mod config;
mod connection;
mod functions;
mod keys;
mod reply;
mod stream;
mod wake;

pub use codec::{MAX_ATTEMPTS, MAX_EXCERPT};
pub use config::{MAX_SHARDS, RedisConfig};
pub use stream::RedisStream;

use crate::error::StoreError;
use crate::queue::{
    Backlog, Batch, Cursor, EventDeliveries, Filter, LeaseRequest, LeaseToken, Leased, Outcome,
    Page, Record, Recorded, RejectedEvent, Retention, Store,
};
use connection::Link;
use functions::{Call, Functions};
use keys::Keys;
use reply::Reply;
use wake::{Listener, Waker};

/// How many refused events are kept.
pub const MAX_REJECTED: usize = 10_000;

/// At most this many events, outcomes or leases in one call, so that none holds up the server.
const CHUNK: usize = 512;
/// At most this many bytes of payload in one enqueue call, unless a single event has more.
const CHUNK_BYTES: usize = 4 << 20;
/// At most this many deliveries looked at per call of a list.
const LIST_SCAN: usize = 500;
/// Calls of a list per page: a rare state among very many deliveries may give a short page.
const LIST_CALLS: usize = 40;
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
    waker: Arc<Waker>,
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
        let waker = Arc::new(Waker::default());
        let listener = Listener::start(link.clone(), channel.clone(), Arc::clone(&waker));
        Ok(Self {
            link,
            functions,
            keys,
            channel,
            waker,
            turn: AtomicUsize::new(0),
            _listener: listener,
        })
    }

    fn call(&self, name: &'static str, shard: usize) -> Call {
        self.functions.call(name, self.keys.shard(shard))
    }

    async fn run(&self, name: &'static str, call: &Call) -> Result<Reply, StoreError> {
        let value = self.functions.run(&self.link, call).await?;
        Reply::new(value).ok_or_else(|| self.link.unexpected(name))
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
    /// large it is.
    fn group<T>(
        &self,
        name: &'static str,
        items: &[T],
        channel: bool,
        tenant: impl Fn(&T) -> &TenantId,
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
                if channel {
                    call.arg(&self.channel);
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

    /// Leases from one shard.
    async fn lease_shard(
        &self,
        shard: usize,
        quota: usize,
        request: &LeaseRequest,
    ) -> Result<ShardBatch, StoreError> {
        let mut call = self.call("lease", shard);
        call.arg(&self.channel).arg(quota);
        call.arg(micros(request.duration).max(1000));
        call.arg(request.max_per_endpoint.max(1));
        let mut reply = self.run("lease", &call).await?;
        self.read_batch(&mut reply, shard, quota)
            .ok_or_else(|| self.link.unexpected("lease"))
    }

    fn read_batch(&self, reply: &mut Reply, shard: usize, quota: usize) -> Option<ShardBatch> {
        let wait = reply.int()?;
        let token = LeaseToken(reply.text()?);
        let mut batch = ShardBatch {
            shard,
            quota,
            taken: 0,
            leased: Vec::with_capacity(reply.len() / 4),
            next_due: u64::try_from(wait).ok().map(Duration::from_micros),
        };
        while !reply.is_empty() {
            batch.taken += 1;
            let (tenant, id) = (reply.text()?, reply.text()?);
            let (record, event) = (reply.bytes()?, reply.bytes()?);
            if let Some(leased) = read_leased(&tenant, &id, &record, &event, &token) {
                batch.leased.push(leased);
            } else {
                // It stays leased and comes again; nothing is thrown away that a newer version or
                // a repair could read.
                tracing::error!(
                    server = self.link.name(),
                    delivery = id,
                    "a leased record cannot be read; it is damaged or of a newer version"
                );
            }
        }
        Some(batch)
    }

    /// The record as kept, and as read.
    async fn read(
        &self,
        tenant: &TenantId,
        id: &DeliveryId,
    ) -> Result<Option<(Bytes, Record)>, StoreError> {
        let mut call = self.call("get", self.keys.shard_of(tenant));
        call.arg(tenant.as_str()).arg(id.as_str());
        let mut reply = self.run("get", &call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let unexpected = || self.link.unexpected("get");
        let bytes = reply.bytes().ok_or_else(unexpected)?;
        let ends = reply.bytes().ok_or_else(unexpected)?;
        let record = read_record(tenant, id, &bytes, &ends)
            .ok_or_else(|| StoreError::Corrupt(format!("delivery {id} of tenant {tenant}")))?;
        Ok(Some((bytes, record)))
    }

    async fn shard_tenants(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.tenants(shard));
        self.link.query("SMEMBERS", &command).await
    }
}

/// What one shard gave.
struct ShardBatch {
    shard: usize,
    quota: usize,
    taken: usize,
    leased: Vec<Leased>,
    next_due: Option<Duration>,
}

async fn check_shards(link: &Link, keys: &Keys, config: &RedisConfig) -> Result<(), StoreError> {
    let meta = keys.meta();
    let mut pipeline = redis::pipe();
    pipeline
        .cmd("HSETNX")
        .arg(&meta)
        .arg("shards")
        .arg(config.shards)
        .ignore();
    pipeline.cmd("HGET").arg(&meta).arg("shards");
    let (kept,): (String,) = link.pipeline("HGET", &pipeline).await?;
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

fn micros(duration: Duration) -> u64 {
    // A year is longer than any lease or wait.
    const YEAR: u64 = 366 * 86_400 * 1_000_000;
    u64::try_from(duration.as_micros()).map_or(YEAR, |micros| micros.min(YEAR))
}

fn read_leased(
    tenant: &str,
    id: &str,
    record: &Bytes,
    event: &Bytes,
    token: &LeaseToken,
) -> Option<Leased> {
    let tenant = TenantId::new(tenant).ok()?;
    let id = DeliveryId::new(id).ok()?;
    let (delivery, attempts) = codec::unpack_record(&tenant, &id, record).ok()?;
    let event = codec::unpack_event(&tenant, &delivery.event_id, event).ok()?;
    Some(Leased {
        delivery,
        event,
        attempts,
        token: token.clone(),
    })
}

fn read_record(tenant: &TenantId, id: &DeliveryId, record: &[u8], ends: &[u8]) -> Option<Record> {
    let (mut delivery, attempts) = codec::unpack_record(tenant, id, record).ok()?;
    let lease_until = match ends {
        [] => None,
        digits => {
            delivery.state = DeliveryState::Leased;
            let micros = std::str::from_utf8(digits).ok()?.parse().ok()?;
            Some(Timestamp::from_microsecond(micros).ok()?)
        }
    };
    Some(Record {
        delivery,
        attempts,
        lease_until,
    })
}

/// The ends that a lease may have, as the functions call them.
fn kind(state: DeliveryState) -> Option<&'static str> {
    match state {
        DeliveryState::Succeeded => Some("s"),
        DeliveryState::DeadLetter => Some("x"),
        DeliveryState::Failed => Some("f"),
        DeliveryState::Pending | DeliveryState::Leased => None,
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn enqueue(&self, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, StoreError> {
        let calls = self.group(
            "enqueue",
            batch,
            true,
            |item| &item.event.tenant_id,
            |call, item| {
                call.arg(item.event.tenant_id.as_str());
                call.arg(item.event.id.as_str());
                call.arg(u8::from(item.extends).to_string());
                // Without deliveries nothing is kept.
                let event = match item.deliveries.as_slice() {
                    [] => Vec::new(),
                    _ => codec::pack_event(&item.event),
                };
                call.arg(&event).arg(item.deliveries.len());
                let mut size = event.len();
                for delivery in &item.deliveries {
                    let packed = codec::pack_delivery(Vec::new(), delivery, &[], None);
                    call.arg(delivery.id.as_str());
                    call.arg(delivery.endpoint_id.as_str()).arg(&packed);
                    size += packed.len();
                }
                size
            },
        );
        let mut answers = vec![
            Enqueued {
                created: 0,
                duplicate: true,
            };
            batch.len()
        ];
        self.run_all("enqueue", calls, |places, mut reply| {
            for place in places {
                if let Ok(created) = usize::try_from(reply.int()?) {
                    answers[*place] = Enqueued {
                        created,
                        duplicate: false,
                    };
                }
            }
            Some(())
        })
        .await?;
        if answers.iter().any(|answer| answer.created > 0) {
            self.waker.wake();
        }
        Ok(answers)
    }

    async fn known(&self, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, StoreError> {
        let calls = self.group(
            "known",
            events,
            false,
            |(tenant, _)| tenant,
            |call, (tenant, event)| {
                call.arg(tenant.as_str()).arg(event.as_str());
                0
            },
        );
        let mut answers = vec![false; events.len()];
        self.run_all("known", calls, |places, mut reply| {
            for place in places {
                answers[*place] = reply.int()? == 1;
            }
            Some(())
        })
        .await?;
        Ok(answers)
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Batch, StoreError> {
        self.waker.looking();
        let shards = self.keys.shards();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut active: Vec<usize> = (0..shards).map(|n| (first + n) % shards).collect();
        let mut batch = Batch::default();
        let mut left = request.max;
        // An even share of each shard first, then again of those that have more.
        while left > 0 && !active.is_empty() {
            let asked = active.len().min(left);
            let quota = |n: usize| (left / asked + usize::from(n < left % asked)).min(CHUNK);
            let mut full = active.split_off(asked);
            let calls = active
                .iter()
                .enumerate()
                .map(|(n, shard)| self.lease_shard(*shard, quota(n), request));
            let mut failed = None;
            for answer in join_all(calls).await {
                match answer {
                    Ok(part) => {
                        if part.taken >= part.quota {
                            full.push(part.shard);
                        }
                        left = left.saturating_sub(part.taken);
                        batch.leased.extend(part.leased);
                        batch.next_due = match (batch.next_due, part.next_due) {
                            (Some(a), Some(b)) => Some(a.min(b)),
                            (a, b) => a.or(b),
                        };
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                // What was leased meanwhile must not be lost.
                if batch.leased.is_empty() {
                    return Err(error);
                }
                tracing::warn!(%error, "a shard could not be leased from");
                return Ok(batch);
            }
            active = full;
        }
        Ok(batch)
    }

    async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        if let Some(outcome) = outcomes.iter().find(|o| kind(o.delivery.state).is_none()) {
            return Err(StoreError::Refused {
                store: self.link.name().to_owned(),
                operation: "record",
                reason: format!("an attempt cannot end as {}", outcome.delivery.state),
            });
        }
        let now = Timestamp::now();
        let calls = self.group(
            "record",
            outcomes,
            true,
            |outcome| &outcome.leased.delivery.tenant_id,
            |call, outcome| {
                let leased = &outcome.leased;
                let wait = outcome.delivery.next_at.duration_since(now);
                let wait = Duration::try_from(wait).unwrap_or_default();
                let record =
                    codec::pack_record(&outcome.delivery, &leased.attempts, Some(&outcome.attempt));
                call.arg(leased.delivery.tenant_id.as_str());
                call.arg(leased.delivery.endpoint_id.as_str());
                call.arg(leased.delivery.id.as_str());
                call.arg(&leased.token.0);
                call.arg(kind(outcome.delivery.state).unwrap_or("x"));
                call.arg(micros(wait).div_ceil(1000));
                call.arg(outcome.delivery.attempt).arg(&record);
                record.len()
            },
        );
        let mut answers = vec![Recorded::LeaseLost; outcomes.len()];
        self.run_all("record", calls, |places, mut reply| {
            for place in places {
                if reply.int()? == 1 {
                    answers[*place] = Recorded::Written;
                }
            }
            Some(())
        })
        .await?;
        Ok(answers)
    }

    async fn release(&self, leases: &[Leased]) -> Result<(), StoreError> {
        let calls = self.group(
            "release",
            leases,
            true,
            |leased| &leased.delivery.tenant_id,
            |call, leased| {
                call.arg(leased.delivery.tenant_id.as_str());
                call.arg(leased.delivery.endpoint_id.as_str());
                call.arg(leased.delivery.id.as_str());
                call.arg(&leased.token.0);
                0
            },
        );
        self.run_all("release", calls, |_, _| Some(())).await?;
        if !leases.is_empty() {
            self.waker.wake();
        }
        Ok(())
    }

    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError> {
        self.waker.wait(timeout).await;
        Ok(())
    }

    async fn replay(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError> {
        // Only another replay, or retention, can come between reading and moving.
        for _ in 0..8 {
            let Some((bytes, record)) = self.read(tenant, delivery).await? else {
                return Err(StoreError::NotFound);
            };
            let replayed: Delivery = record
                .delivery
                .replayed(Timestamp::now())
                .map_err(|_| StoreError::NotFinished(record.delivery.state))?;
            let packed = codec::pack_record(&replayed, &record.attempts, None);
            let mut call = self.call("replay", self.keys.shard_of(tenant));
            call.arg(&self.channel).arg(tenant.as_str());
            call.arg(delivery.as_str())
                .arg(replayed.endpoint_id.as_str());
            call.arg(bytes.as_ref()).arg(&packed);
            let mut reply = self.run("replay", &call).await?;
            if reply.int() == Some(1) {
                self.waker.wake();
                return Ok(());
            }
        }
        Err(StoreError::Refused {
            store: self.link.name().to_owned(),
            operation: "replay",
            reason: "the delivery keeps changing".to_owned(),
        })
    }

    async fn get(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
    ) -> Result<Option<Record>, StoreError> {
        Ok(self.read(tenant, delivery).await?.map(|(_, record)| record))
    }

    async fn event(&self, tenant: &TenantId, event: &EventId) -> Result<Option<Event>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.event(tenant, event));
        let bytes: Option<Vec<u8>> = self.link.query("GET", &command).await?;
        bytes
            .map(|bytes| {
                codec::unpack_event(tenant, event, &Bytes::from(bytes))
                    .map_err(|_| StoreError::Corrupt(format!("event {event} of tenant {tenant}")))
            })
            .transpose()
    }

    async fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let mut page = Page {
            records: Vec::new(),
            next: None,
        };
        if filter.limit == 0 {
            return Ok(page);
        }
        let (indexes, scan) = match filter.state {
            None => ("osx", filter.limit),
            Some(DeliveryState::Succeeded) => ("s", filter.limit),
            Some(DeliveryState::DeadLetter) => ("x", filter.limit),
            // One index holds three states: look further than for a page that needs no sorting out.
            Some(_) => ("o", filter.limit.saturating_mul(2).max(100)),
        };
        let scan = scan.min(LIST_SCAN);
        let mut from = match &filter.cursor {
            None => "+inf".to_owned(),
            Some(Cursor(stamp))
                if !stamp.is_empty() && stamp.bytes().all(|b| b.is_ascii_digit()) =>
            {
                format!("({stamp}")
            }
            Some(_) => {
                return Err(StoreError::Configuration(
                    "the cursor is not one of this store's".to_owned(),
                ));
            }
        };
        for _ in 0..LIST_CALLS {
            let mut call = self.call("list", self.keys.shard_of(&filter.tenant));
            call.arg(filter.tenant.as_str())
                .arg(indexes)
                .arg(&from)
                .arg(scan);
            let mut reply = self.run("list", &call).await?;
            let mut rows = reply.len() / 4;
            let last = rows < scan;
            while rows > 0 {
                rows -= 1;
                let row = (reply.text(), reply.text(), reply.bytes(), reply.bytes());
                let (Some(id), Some(stamp), Some(record), Some(ends)) = row else {
                    return Err(self.link.unexpected("list"));
                };
                from = format!("({stamp}");
                if let Some(record) = DeliveryId::new(&id)
                    .ok()
                    .and_then(|id| read_record(&filter.tenant, &id, &record, &ends))
                {
                    if filter
                        .state
                        .is_none_or(|state| record.delivery.state == state)
                    {
                        page.records.push(record);
                    }
                } else {
                    tracing::error!(delivery = id, "a listed record cannot be read");
                }
                if page.records.len() == filter.limit {
                    page.next = (rows > 0 || !last).then_some(Cursor(stamp));
                    return Ok(page);
                }
            }
            if last {
                return Ok(page);
            }
        }
        page.next = Some(Cursor(from.trim_start_matches('(').to_owned()));
        Ok(page)
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
        self.link.pipeline("LPUSH", &pipeline).await
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
        let mut removed = 0;
        for shard in 0..self.keys.shards() {
            let tenants = self.shard_tenants(shard).await?;
            for tenants in tenants.chunks(RETAIN_TENANTS) {
                loop {
                    let mut call = self.call("retain", shard);
                    call.arg(age)
                        .arg(retention.count)
                        .arg(RETAIN_SCAN)
                        .arg(tenants);
                    let mut reply = self.run("retain", &call).await?;
                    let unexpected = || self.link.unexpected("retain");
                    let gone = reply.int().ok_or_else(unexpected)?;
                    let looked = reply.int().ok_or_else(unexpected)?;
                    removed += usize::try_from(gone).map_err(|_| unexpected())?;
                    if removed >= RETAIN_SCAN {
                        return Ok(removed);
                    }
                    if usize::try_from(looked).map_err(|_| unexpected())? < RETAIN_SCAN {
                        break;
                    }
                }
            }
        }
        Ok(removed)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let calls: Vec<_> = (0..self.keys.shards())
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

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CONFIG").arg("GET").arg("appendonly");
        pipeline.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
        let server = self.link.name();
        let answer: Result<(Vec<String>, Vec<String>), _> =
            self.link.pipeline("CONFIG GET", &pipeline).await;
        let (appendonly, policy) = match answer {
            Ok(answer) => answer,
            Err(error @ StoreError::Unavailable { .. }) => return Err(error),
            Err(_) => {
                return Ok(vec![format!(
                    "{server} does not tell its settings; without appendonly, deliveries since its last snapshot are lost if it stops, and with a maxmemory-policy other than noeviction it may drop deliveries when memory is short"
                )]);
            }
        };
        let mut warnings = Vec::new();
        if appendonly.get(1).is_some_and(|value| value != "yes") {
            warnings.push(format!(
                "{server} has appendonly off: deliveries and events since its last snapshot are lost if it stops"
            ));
        }
        if let Some(policy) = policy.get(1).filter(|value| *value != "noeviction") {
            warnings.push(format!(
                "{server} has the maxmemory-policy {policy}: it may drop deliveries and events when memory is short; set noeviction"
            ));
        }
        Ok(warnings)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let _: Value = self.link.query("PING", &redis::cmd("PING")).await?;
        Ok(())
    }
}
