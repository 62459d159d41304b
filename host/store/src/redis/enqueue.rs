//! Writing events with their deliveries.

use futures_util::future::try_join_all;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, EventId, TenantId};

use super::functions::Call;
use super::reply::Reply;
use super::{RECORD, RedisStore, codec};
use crate::error::StoreError;
use crate::queue::EventDeliveries;

/// The key of a delivery's sequence as the functions take it: after a sign, or nothing.
pub(super) fn sequence_arg(call: &mut Call, delivery: &Delivery) {
    match &delivery.sequence {
        Some(sequence) => call.parts(&[b"=", sequence.name().as_bytes()]),
        None => call.arg(""),
    };
}

impl RedisStore {
    pub(super) async fn enqueue_events(
        &self,
        batch: &[EventDeliveries],
    ) -> Result<Vec<Enqueued>, StoreError> {
        // A tenant's events side by side: its deliveries then share entries of its list.
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|place| batch[*place].event.tenant_id.as_str());
        let calls = self.group(
            "enqueue",
            &order,
            true,
            |place| &batch[*place].event.tenant_id,
            |place| {
                let item = &batch[*place];
                item.event.payload.len() + RECORD * (1 + item.deliveries.len())
            },
            |call, place| {
                let item = &batch[*place];
                let tenant = item.event.tenant_id.as_str().as_bytes();
                let shard = self.keys.shard(self.keys.shard_of(&item.event.tenant_id));
                let special = item
                    .deliveries
                    .iter()
                    .any(|delivery| delivery.is_scheduled() || delivery.sequence.is_some());
                // The same text for all events that go the same way: the server keeps it once per call.
                let flags = b'0' + u8::from(item.extends) + 2 * u8::from(special);
                let mut head = Vec::with_capacity(128);
                head.push(flags);
                head.extend_from_slice(tenant);
                for delivery in &item.deliveries {
                    head.push(0);
                    head.extend_from_slice(delivery.endpoint_id.as_str().as_bytes());
                }
                call.arg(&head);
                let event = item.event.id.as_str().as_bytes();
                call.parts(&[shard.as_bytes(), b"e:", tenant, b"\0", event]);
                // Without deliveries nothing is kept.
                let event = match item.deliveries.as_slice() {
                    [] => Vec::new(),
                    _ => codec::pack_event(&item.event),
                };
                call.arg(&event);
                for delivery in &item.deliveries {
                    let id = delivery.id.as_str().as_bytes();
                    call.parts(&[shard.as_bytes(), b"d:", tenant, b"\0", id]);
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
                        sequence_arg(call, delivery);
                    }
                }
            },
        );
        let mut answers = vec![
            Enqueued {
                created: 0,
                duplicate: true,
            };
            batch.len()
        ];
        let shards = calls.into_iter().filter(|calls| !calls.is_empty());
        let shards = try_join_all(shards.map(|calls| async {
            let mut made = Vec::new();
            for (places, call) in calls {
                let items = places.iter().map(|place| &batch[order[*place]]);
                let enqueued = self.enqueue_call(call, items).await?;
                made.extend(places.iter().map(|place| order[*place]).zip(enqueued));
            }
            Ok::<_, StoreError>(made)
        }))
        .await?;
        for (place, enqueued) in shards.into_iter().flatten() {
            answers[place] = enqueued;
        }
        Ok(answers)
    }

    /// Makes one call. What it made is leased by the same step if a worker waits for new work; otherwise it is
    /// told that there is some.
    async fn enqueue_call(
        &self,
        mut call: Call,
        items: impl Iterator<Item = &EventDeliveries> + Send,
    ) -> Result<Vec<Enqueued>, StoreError> {
        let shard = call.about();
        // Without the lock another call for new work is on its way.
        let mut heard = self.heard(shard, true).try_lock().ok();
        let offer = heard.as_ref().and_then(|_| self.offers.take());
        let mut was_unsure = true;
        match (&offer, &heard) {
            (Some(offer), Some(heard)) => {
                was_unsure = self.outlook.unsure(shard);
                offer.write(&mut call, heard.as_ref());
            }
            _ => {
                call.arg(0);
            }
        }
        let announced = self.fresh.announce(shard);
        let mut reply = self.run("enqueue", &call).await?;
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

    /// Keeps what was enqueued, by the reply. Also says whether a tenant stands before all that had a turn
    /// because of it.
    fn keep<'a>(
        &self,
        reply: &mut Reply,
        items: impl Iterator<Item = &'a EventDeliveries>,
    ) -> Option<(Vec<Enqueued>, bool)> {
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
