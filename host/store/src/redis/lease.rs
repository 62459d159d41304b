//! Leasing due deliveries.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use redis::Value;
use wasmhook_core::{DeliveryId, EndpointId, Event, TenantId};

use super::outlook::Outlook;
use super::reply::Reply;
use super::{CHUNK, RECORD, RedisStore, codec, micros};
use crate::error::StoreError;
use crate::queue::{Batch, LeaseRequest, LeaseToken, Leased};

/// How long a shard that failed is left alone.
pub(super) const REST: Duration = Duration::from_millis(500);

/// What one shard gave.
pub(super) struct ShardBatch {
    pub(super) shard: usize,
    pub(super) quota: usize,
    pub(super) taken: usize,
    /// What the tenants that could be served have of weight together, about.
    pub(super) weight: u64,
    pub(super) leased: Vec<Leased>,
    pub(super) next_due: Option<Duration>,
}

/// A leased delivery that must be read from the server.
struct Unread {
    tenant: TenantId,
    endpoint: EndpointId,
    id: DeliveryId,
}

impl RedisStore {
    pub(super) async fn lease_due(&self, request: &LeaseRequest) -> Result<Batch, StoreError> {
        let (worth, others) = self.outlook.worth_asking();
        let mut batch = Batch::default();
        self.lease_from(worth, request, &mut batch).await?;
        if !others.is_empty() {
            if batch.leased.is_empty() {
                self.lease_from(others, request, &mut batch).await?;
            } else {
                batch.next_due = Some(Outlook::again(batch.next_due));
            }
        }
        Ok(batch)
    }

    /// Adds to a batch what these shards have.
    async fn lease_from(
        &self,
        mut active: Vec<usize>,
        request: &LeaseRequest,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let mut left = request.max.saturating_sub(batch.leased.len());
        let began = Instant::now();
        let is_all = active.len() >= self.keys.shards();
        let (mut failed, mut answered, mut is_first) = (None, false, true);
        while left > 0 && !active.is_empty() {
            let asked = self.shares.part(&active, left, is_first);
            is_first = false;
            active.retain(|shard| asked.iter().all(|(one, _)| one != shard));
            for (shard, _) in &asked {
                self.outlook.asking(*shard);
            }
            let calls = asked
                .iter()
                .map(|(shard, quota)| self.lease_shard(*shard, *quota, request, None));
            let answers = if self.link.is_cluster() {
                join_all(calls).await
            } else {
                self.one_by_one(calls).await
            };
            let answers_made = answers.len();
            for ((shard, _), answer) in asked.iter().zip(answers) {
                match answer {
                    Ok(part) => {
                        answered = true;
                        self.outlook.answers(part.shard);
                        self.shares
                            .took(part.shard, part.quota, part.taken, part.weight);
                        if part.taken >= part.quota {
                            self.outlook.more(part.shard);
                            active.push(part.shard);
                        } else {
                            self.outlook.empty(part.shard, part.next_due);
                        }
                        left = left.saturating_sub(part.taken);
                        batch.leased.extend(part.leased);
                        batch.next_due = match (batch.next_due, part.next_due) {
                            (Some(a), Some(b)) => Some(a.min(b)),
                            (a, b) => a.or(b),
                        };
                    }
                    Err(error) => {
                        self.shares.failed(*shard);
                        self.outlook.empty(*shard, Some(REST));
                        batch.next_due = Some(batch.next_due.map_or(REST, |due| due.min(REST)));
                        failed = Some(error);
                    }
                }
            }
            for (shard, _) in asked.get(answers_made..).unwrap_or_default() {
                self.shares.failed(*shard);
                self.outlook.empty(*shard, Some(REST));
            }
            // The nodes of a cluster fail one by one: work of the others is not to wait for a shard that is away.
            if failed.is_some() && !self.link.is_cluster() {
                break;
            }
        }
        if let Some(error) = failed {
            // What was leased meanwhile must not be lost.
            let is_alone = self.link.is_cluster() && (answered || !is_all);
            if batch.leased.is_empty() && !is_alone {
                return Err(error);
            }
            tracing::warn!(%error, "a shard could not be leased from");
        }
        if began.elapsed() >= request.duration {
            // A shard that was asked again may have given anew what it gave first.
            let mut seen = HashSet::new();
            batch.leased.reverse();
            batch.leased.retain(|leased| {
                let delivery = &leased.delivery;
                seen.insert((delivery.tenant_id.clone(), delivery.id.clone()))
            });
            batch.leased.reverse();
        }
        Ok(())
    }

    /// Makes the calls one after the other, up to the first that fails, which stands for the rest. Their shards are on one
    /// server, which would work through them in one go while all other clients wait.
    async fn one_by_one(
        &self,
        calls: impl Iterator<Item = impl Future<Output = Result<ShardBatch, StoreError>>>,
    ) -> Vec<Result<ShardBatch, StoreError>> {
        let mut answers = Vec::new();
        for call in calls {
            let answer = call.await;
            let failed = answer.is_err();
            answers.push(answer);
            if failed {
                break;
            }
        }
        answers
    }

    /// Leases from one shard, which the caller has marked as being asked; with `new` only what
    /// [`NewWork::lease`] may, for endpoints with fewer than so many in flight.
    pub(super) async fn lease_shard(
        &self,
        shard: usize,
        quota: usize,
        request: &LeaseRequest,
        new: Option<usize>,
    ) -> Result<ShardBatch, StoreError> {
        // One call after the other: the function takes what this host has not heard of for lost.
        let mut heard = self.heard(shard, new.is_some()).lock().await;
        let mut call = self.call("lease", shard);
        if new.is_some() {
            call.prompt();
        }
        call.arg(&self.channel).arg(&self.me).arg(quota);
        call.arg(micros(request.duration).max(1000));
        call.arg(request.max_per_endpoint.max(1));
        call.arg(u8::from(new.is_none() && self.outlook.may_tell()));
        call.arg(new.map_or(0, |light| light.max(1)));
        call.arg(heard.as_ref().map_or("", |token| &token.0));
        let reply = self.run("lease", &call).await?;
        self.read_lease(shard, quota, reply, &mut heard, new.is_some())
            .await
    }

    /// What a shard leased by its reply, `new` if to a call for new work. The deliveries that this host does not
    /// have at hand are read; should that fail, the next call puts all of this one back.
    pub(super) async fn read_lease(
        &self,
        shard: usize,
        quota: usize,
        mut reply: Reply,
        heard: &mut Option<LeaseToken>,
        new: bool,
    ) -> Result<ShardBatch, StoreError> {
        let unexpected = || self.link.unexpected("lease");
        let wait = reply.int().ok_or_else(unexpected)?;
        let token = LeaseToken(reply.text().ok_or_else(unexpected)?.into());
        let weight = reply.int().ok_or_else(unexpected)?;
        let mut batch = ShardBatch {
            shard,
            quota,
            taken: 0,
            weight: u64::try_from(weight).unwrap_or_default(),
            leased: Vec::with_capacity(reply.len()),
            next_due: u64::try_from(wait).ok().map(Duration::from_micros),
        };
        let mut missing = Vec::new();
        while !reply.is_empty() {
            let tenant = reply.text().and_then(|name| TenantId::new(name).ok());
            let endpoint = reply.text().and_then(|name| EndpointId::new(name).ok());
            let count = reply.int().and_then(|count| usize::try_from(count).ok());
            let (Some(tenant), Some(endpoint), Some(count)) = (tenant, endpoint, count) else {
                return Err(unexpected());
            };
            batch.taken += count;
            for _ in 0..count {
                let entry = reply.bytes().ok_or_else(unexpected)?;
                let (stamp, id) = read_entry(&entry).ok_or_else(unexpected)?;
                match stamp
                    .and_then(|stamp| self.take_fresh(&tenant, &endpoint, stamp, &id, &token))
                {
                    Some(leased) => batch.leased.push(leased),
                    None => missing.push((
                        stamp,
                        Unread {
                            tenant: tenant.clone(),
                            endpoint: endpoint.clone(),
                            id,
                        },
                    )),
                }
            }
        }
        if new && missing.iter().any(|(stamp, _)| stamp.is_some()) {
            self.fresh.settle(shard).await;
        }
        let mut unread = Vec::new();
        for (stamp, delivery) in missing {
            let stamp = stamp.filter(|_| new);
            let Unread {
                tenant,
                endpoint,
                id,
            } = &delivery;
            match stamp.and_then(|stamp| self.take_fresh(tenant, endpoint, stamp, id, &token)) {
                Some(leased) => batch.leased.push(leased),
                None => unread.push(delivery),
            }
        }
        if !unread.is_empty() {
            let reading = self.read_leased(&token, unread, &mut batch.leased);
            self.on_shard(shard, self.absence.patience(shard), reading)
                .await?;
        }
        if batch.taken > 0 {
            *heard = Some(token);
        }
        // Less than asked for is no sign that nothing else is due.
        if batch.leased.len() < batch.taken {
            batch.next_due = Some(Duration::ZERO);
        }
        Ok(batch)
    }

    fn take_fresh(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        stamp: u64,
        id: &DeliveryId,
        token: &LeaseToken,
    ) -> Option<Leased> {
        let (delivery, event) = self.fresh.take(tenant, endpoint, stamp)?;
        // After a failover to a clock that is behind, a stamp may be given out again.
        (delivery.id == *id).then(|| Leased {
            delivery,
            event,
            attempts: Vec::new(),
            token: token.clone(),
        })
    }

    /// Reads the deliveries of one shard that this host does not have at hand, and their events.
    async fn read_leased(
        &self,
        token: &LeaseToken,
        unread: Vec<Unread>,
        leased: &mut Vec<Leased>,
    ) -> Result<(), StoreError> {
        let keys = unread
            .iter()
            .map(|unread| self.keys.delivery(&unread.tenant, unread.id.as_str()));
        let records = self.mget(keys).await?;
        let mut found = Vec::with_capacity(unread.len());
        let mut lost = Vec::new();
        for (unread, record) in unread.into_iter().zip(records) {
            match record.map(|record| codec::unpack_record(&unread.tenant, &unread.id, &record)) {
                Some(Ok((delivery, attempts))) => found.push((delivery, attempts)),
                Some(Err(_)) => self.cannot_read(&unread.id),
                None => lost.push(unread),
            }
        }
        // An event is read once however many of its deliveries were leased.
        let mut events: HashMap<String, Option<Event>> = HashMap::new();
        let mut wanted = Vec::new();
        for (delivery, _) in &found {
            let key = self.keys.event(&delivery.tenant_id, &delivery.event_id);
            if let Entry::Vacant(place) = events.entry(key) {
                wanted.push((place.key().clone(), delivery));
                place.insert(None);
            }
        }
        let values = self.mget(wanted.iter().map(|(key, _)| key.clone())).await?;
        for ((key, delivery), value) in wanted.into_iter().zip(values) {
            let event = value.and_then(|value| {
                codec::unpack_event(&delivery.tenant_id, &delivery.event_id, &value).ok()
            });
            events.insert(key, event);
        }
        for (delivery, attempts) in found {
            let key = self.keys.event(&delivery.tenant_id, &delivery.event_id);
            match events.get(&key).and_then(Option::as_ref) {
                Some(event) => leased.push(Leased {
                    event: event.clone(),
                    delivery,
                    attempts,
                    token: token.clone(),
                }),
                None => self.cannot_read(&delivery.id),
            }
        }
        self.drop_lost(token, &lost).await
    }

    /// It stays leased and comes again; nothing is thrown away that a newer version or a repair
    /// could read.
    fn cannot_read(&self, id: &DeliveryId) {
        tracing::error!(
            server = self.link.name(),
            delivery = %id,
            "a leased record or its event cannot be read; it is damaged, evicted, or of a newer version"
        );
    }

    /// Drops leases whose records are gone. Nothing is, unless the server evicts keys or somebody
    /// deleted them; then what is left must not hold a place.
    async fn drop_lost(&self, token: &LeaseToken, lost: &[Unread]) -> Result<(), StoreError> {
        let calls = self.group(
            "release",
            lost,
            true,
            |lost| &lost.tenant,
            |_| RECORD,
            |call, lost| {
                let (tenant, id) = (lost.tenant.as_str().as_bytes(), lost.id.as_str().as_bytes());
                call.parts(&[tenant, b"\0", lost.endpoint.as_str().as_bytes()]);
                call.arg(id);
                call.parts(&[tenant, b"\0", id]);
                call.arg(token.0.as_bytes()).arg(0);
            },
        );
        self.run_all("release", calls, |_, _| Some(())).await
    }

    pub(super) async fn mget(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys: Vec<String> = keys.collect();
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CHUNK) {
            let mut command = redis::cmd("MGET");
            command.arg(keys);
            let found: Vec<Value> = self.link.query("MGET", &command).await?;
            values.extend(found.into_iter().map(|value| match value {
                Value::BulkString(bytes) => Some(Bytes::from(bytes)),
                _ => None,
            }));
        }
        Ok(values)
    }
}

/// An entry of a lane: the creation stamp, if nobody leased it before, and the id.
fn read_entry(entry: &[u8]) -> Option<(Option<u64>, DeliveryId)> {
    let (stamp, id) = if let Some(id) = entry.strip_prefix(b"-") {
        (None, id)
    } else {
        let (stamp, id) = entry.split_at_checked(codec::STAMP)?;
        (Some(codec::stamp_time(stamp)?.0), id)
    };
    Some((stamp, DeliveryId::new(std::str::from_utf8(id).ok()?).ok()?))
}
