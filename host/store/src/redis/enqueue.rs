//! Writing events with their deliveries.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use redis::{Cmd, RedisWrite as _};
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, EventId, TenantId};

use super::functions::{Call, Parts};
use super::reply::Reply;
use super::{RECORD, RedisStore, beside, codec};
use crate::error::StoreError;
use crate::queue::EventDeliveries;

/// The key of a delivery's sequence as the functions take it: after a sign, or nothing.
pub(super) fn sequence_arg(call: &mut Call, delivery: &Delivery) {
    match &delivery.sequence {
        Some(sequence) => call.parts(&[b"=", sequence.name().as_bytes()]),
        None => call.arg(""),
    };
}

/// How the events of a call are written.
enum Events<'a> {
    /// With it.
    Within,
    /// With it, after they were to be written beside another with this token.
    Repeated(&'a str),
    /// By this command beside it.
    Beside(&'a mut Cmd, &'a str),
}

impl RedisStore {
    pub(super) async fn enqueue_events(
        &self,
        batch: &[EventDeliveries],
    ) -> Result<Vec<Enqueued>, StoreError> {
        // A tenant's events side by side: its deliveries then share entries of its list.
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|place| batch[*place].event.tenant_id.as_str());
        let calls = self.parted(
            &order,
            |place| &batch[*place].event.tenant_id,
            |place| {
                let item = &batch[*place];
                item.event.payload.len() + RECORD * (1 + item.deliveries.len())
            },
        );
        let mut answers = vec![
            Enqueued {
                created: 0,
                duplicate: true,
            };
            batch.len()
        ];
        let order = &order;
        let shards = calls.into_iter().enumerate();
        let shards = shards.filter(|(_, chunks)| !chunks.is_empty());
        let shards = try_join_all(shards.map(|(shard, chunks)| async move {
            let mut made = Vec::new();
            for chunk in chunks {
                let places: Vec<usize> = chunk.places.iter().map(|place| order[*place]).collect();
                let items: Vec<&EventDeliveries> =
                    places.iter().map(|place| &batch[*place]).collect();
                let enqueued = self.enqueue_chunk(shard, &items, chunk.bytes).await?;
                made.extend(places.into_iter().zip(enqueued));
            }
            Ok::<_, StoreError>(made)
        }))
        .await?;
        for (place, enqueued) in shards.into_iter().flatten() {
            answers[place] = enqueued;
        }
        Ok(answers)
    }

    /// Begins a call that enqueues these items; `bytes` is about how long it will be.
    fn enqueue_call(
        &self,
        shard: usize,
        items: &[&EventDeliveries],
        bytes: usize,
        mut events: Events<'_>,
    ) -> Call {
        let prefix = self.keys.shard(shard).as_bytes();
        let mut call = self.call("enqueue", shard);
        call.arg(&self.channel).arg(&self.me);
        match &events {
            Events::Within => {
                call.reserve(bytes);
                call.arg("");
            }
            Events::Repeated(token) => {
                call.reserve(bytes);
                call.parts(&[b"-", token.as_bytes()]);
            }
            Events::Beside(_, token) => {
                let rest = items
                    .iter()
                    .map(|item| RECORD * (1 + item.deliveries.len()));
                call.reserve(rest.sum());
                call.parts(&[b"=", token.as_bytes()]);
            }
        }
        let mut names = HashSet::new();
        let mut head = Vec::with_capacity(128);
        for item in items {
            let (tenant, event) = (item.event.tenant_id.as_str(), item.event.id.as_str());
            let special = item
                .deliveries
                .iter()
                .any(|delivery| delivery.is_scheduled() || delivery.sequence.is_some());
            // Of events with one id the first counts. Without deliveries nothing is kept.
            let beside = match &mut events {
                Events::Beside(command, _)
                    if names.insert((tenant, event))
                        && !item.extends
                        && !item.deliveries.is_empty() =>
                {
                    Some(command)
                }
                _ => None,
            };
            head.clear();
            let beside_flag = 4 * u8::from(beside.is_some());
            head.push(b'0' + u8::from(item.extends) + 2 * u8::from(special) + beside_flag);
            head.extend_from_slice(tenant.as_bytes());
            for delivery in &item.deliveries {
                head.push(0);
                head.extend_from_slice(delivery.endpoint_id.as_str().as_bytes());
            }
            call.head(&head);
            let key = [prefix, b"e:", tenant.as_bytes(), b"\0", event.as_bytes()];
            call.parts(&key);
            let packed = || match item.deliveries.as_slice() {
                [] => Vec::new(),
                _ => codec::pack_event(&item.event),
            };
            match beside {
                Some(command) => {
                    command.arg(Parts(&key)).arg(packed());
                }
                None => {
                    call.arg(packed());
                }
            }
            for delivery in &item.deliveries {
                let id = delivery.id.as_str().as_bytes();
                call.parts(&[prefix, b"d:", tenant.as_bytes(), b"\0", id]);
                let rest = codec::pack_rest(Vec::with_capacity(192), delivery, &[], None);
                call.arg(&rest);
                if special {
                    // By the server's clock, as everything is due: see `EventDeliveries`.
                    let due = delivery.next_at.as_millisecond();
                    if delivery.is_scheduled() {
                        call.arg(due);
                    } else {
                        call.arg("");
                    }
                    sequence_arg(&mut call, delivery);
                }
            }
        }
        call
    }

    /// Enqueues items of one shard. What it made is leased by the same step if a worker waits for new work;
    /// otherwise it is told that there is some.
    async fn enqueue_chunk(
        &self,
        shard: usize,
        items: &[&EventDeliveries],
        bytes: usize,
    ) -> Result<Vec<Enqueued>, StoreError> {
        // Without the lock another call for new work is on its way.
        let mut heard = self.heard(shard, true).try_lock().ok();
        let offer = heard.as_ref().and_then(|_| self.offers.take());
        let was_unsure = match (&offer, &heard) {
            (Some(_), Some(_)) => self.outlook.unsure(shard),
            _ => true,
        };
        let end = |call: &mut Call| match (&offer, &heard) {
            (Some(offer), Some(heard)) => offer.write(call, heard.as_ref()),
            _ => {
                call.arg(0);
            }
        };
        let announced = self.fresh.announce(shard);
        let mut reply = self.write_events(shard, items, bytes, end).await?;
        let unexpected = || self.link.unexpected("enqueue");
        let (enqueued, first) = self.keep(&mut reply, items).ok_or_else(unexpected)?;
        drop(announced);
        match (offer, &mut heard) {
            (Some(offer), Some(heard)) if !reply.is_empty() => {
                let part = self.read_lease(shard, offer.quota(), reply, heard, true);
                match part.await {
                    Ok(part) => {
                        self.outlook.sure(shard);
                        self.note_left(&part);
                        self.bring(offer, part.leased).await;
                    }
                    // The next call puts it back.
                    Err(error) => {
                        self.outlook.work(shard);
                        tracing::warn!(%error, "what was enqueued could not be leased");
                    }
                }
            }
            _ => {
                // It leased nothing, and put nothing back that an earlier call may have leased.
                if was_unsure {
                    self.outlook.answers(shard);
                } else {
                    self.outlook.sure(shard);
                }
                if first {
                    self.outlook.work(shard);
                } else if enqueued.iter().any(|enqueued| enqueued.created > 0) {
                    self.outlook.rest(shard);
                }
            }
        }
        Ok(enqueued)
    }

    /// Makes the call that enqueues these items, or the two of which the first was of no use; `end` adds what they
    /// end with.
    async fn write_events(
        &self,
        shard: usize,
        items: &[&EventDeliveries],
        bytes: usize,
        end: impl Fn(&mut Call) + Send + Sync,
    ) -> Result<Reply, StoreError> {
        let payloads: usize = items.iter().map(|item| item.event.payload.len()).sum();
        // Waiting for replicas is for single calls, on connections of their own.
        let pays = beside::pays(payloads) && !self.link.confirms();
        let token = pays.then(|| self.beside[shard].token(&self.me)).flatten();
        let mut call = if let Some(token) = token {
            let reply = self.write_beside(shard, items, bytes, &token, &end).await?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            self.beside[shard].was_useless();
            self.enqueue_call(shard, items, bytes, Events::Repeated(&token))
        } else {
            self.enqueue_call(shard, items, bytes, Events::Within)
        };
        end(&mut call);
        self.run("enqueue", &call).await
    }

    /// Writes the events by a plain command in the same transaction as the call that makes their deliveries: passing
    /// a payload through Lua costs Redis more than all else that is done with an event. Nothing, if the call is to be
    /// made anew, with the events in it; `is_refused` in `lua/enqueue.lua` says when, and what a crash leaves.
    async fn write_beside(
        &self,
        shard: usize,
        items: &[&EventDeliveries],
        bytes: usize,
        token: &str,
        end: impl Fn(&mut Call),
    ) -> Result<Option<Reply>, StoreError> {
        let mut events = redis::cmd("MSETNX");
        events.reserve_space_for_args([bytes]);
        events
            .arg(format!("{}E", self.keys.shard(shard)))
            .arg(token);
        let mut call = self.enqueue_call(shard, items, bytes, Events::Beside(&mut events, token));
        end(&mut call);
        let reply = self.run_after("enqueue", events, call).await?;
        Ok(reply.filter(|reply| !reply.begins_empty()))
    }

    /// Keeps what was enqueued, by the reply. Also says whether a tenant stands before all that had a turn
    /// because of it.
    fn keep(&self, reply: &mut Reply, items: &[&EventDeliveries]) -> Option<(Vec<Enqueued>, bool)> {
        let mut stamp: u64 = reply.text()?.parse().ok()?;
        let mut answers = Vec::new();
        for item in items {
            // -1 for a duplicate.
            let Ok(created) = usize::try_from(reply.int()?) else {
                answers.push(Enqueued {
                    created: 0,
                    duplicate: true,
                });
                continue;
            };
            answers.push(Enqueued {
                created,
                duplicate: false,
            });
            // When only some were created it is not known which; and the event that is extended
            // was written by somebody else, in whose words it is delivered.
            if created == item.deliveries.len() && !item.extends {
                self.keep_fresh(stamp, item);
            }
            stamp += u64::try_from(created).ok()?;
        }
        Some((answers, reply.int()? > 0))
    }

    fn keep_fresh(&self, first: u64, item: &EventDeliveries) {
        // As they would be read: with the server's times. What waits for its time is read when it is due.
        let kept = (first..)
            .zip(&item.deliveries)
            .filter_map(|(stamp, delivery)| {
                let at = i64::try_from(stamp).ok();
                let at = at.and_then(|at| jiff::Timestamp::from_microsecond(at).ok())?;
                let delivery = (!delivery.is_scheduled()).then(|| Delivery {
                    created_at: at,
                    next_at: at,
                    updated_at: at,
                    ..delivery.clone()
                });
                Some((stamp, delivery?))
            });
        self.fresh.keep(&item.event, kept);
    }

    pub(super) async fn known_events(
        &self,
        events: &[(TenantId, EventId)],
    ) -> Result<Vec<bool>, StoreError> {
        let calls = self.group(
            "known",
            events,
            false,
            |(tenant, _)| tenant,
            |_| RECORD,
            |call, (tenant, event)| {
                let (tenant, event) = (tenant.as_str().as_bytes(), event.as_str().as_bytes());
                call.parts(&[tenant, b"\0", event]);
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
}
