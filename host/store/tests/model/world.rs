//! Runs a sequence against a store and the reference, side by side.

mod looking;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use proptest::sample::Index;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::delivery::default_id;
use wasmhook_core::{
    Conclusion, Delivery, EndpointId, ErrorClass, Event, EventDraft, EventId, OnDeadLetter,
    OrderingKey, Quota, Sequence, TenantId, Weight,
};
use wasmhook_store::{
    Batch, CheckRequest, EventDeliveries, LeaseRequest, Leased, Outcome, Recorded, Retention,
    Store, StoreError,
};

use crate::reference::{Key, Place, Reference, Verdict, promise};
use crate::steps::{CLIENTS, End, LONG, Pick, Push, SHORT, Step, TENANTS};
use crate::subject::Subject;
use crate::window::Window;

/// A bound against hanging, nothing more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The store under test, the reference, and what the workers hold.
pub(crate) struct World {
    subject: Subject,
    reference: Reference,
    clients: Vec<Client>,
    looks: usize,
}

/// A worker.
struct Client {
    store: Arc<dyn Store>,
    /// Leases it has done nothing with.
    held: Vec<Leased>,
    /// Leases that it recorded or gave back, rightly or not.
    spent: Vec<Leased>,
    /// Leases it forgot.
    lost: Vec<Leased>,
    /// Its latest lease got less than it asked for, so it waits to hear of work. Who got all that it
    /// asked for is to lease again before it waits.
    idle: bool,
}

/// Runs a sequence; says which promise was broken, and by which step.
pub(crate) async fn run(subject: Subject, steps: &[Step]) -> Verdict {
    let mut world = World {
        reference: Reference::default(),
        clients: subject.stores().map(Client::new).collect(),
        looks: 0,
        subject,
    };
    for (number, step) in steps.iter().enumerate() {
        let broken = |words: String| format!("step {number}, {step:?}: {words}");
        world.take(step).await.map_err(broken)?;
        world.look().await.map_err(broken)?;
    }
    world
        .finish()
        .await
        .map_err(|words| format!("at the end: {words}"))
}

impl Client {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            held: Vec::new(),
            spent: Vec::new(),
            lost: Vec::new(),
            idle: true,
        }
    }

    /// The leases that are meant, as far as there are any.
    fn pick(&mut self, picks: &[&Pick]) -> Vec<Leased> {
        picks
            .iter()
            .filter_map(|pick| {
                let from = if pick.spent { &self.spent } else { &self.held };
                (!from.is_empty()).then(|| pick.nth.get(from).clone())
            })
            .collect()
    }

    fn crash(&mut self) {
        self.lost.append(&mut self.held);
    }

    fn spend(&mut self, leases: &[Leased]) {
        for lease in leases {
            let is_it =
                |held: &Leased| held.token == lease.token && held.delivery.id == lease.delivery.id;
            if let Some(place) = self.held.iter().position(is_it) {
                self.spent.push(self.held.remove(place));
            }
        }
    }
}

fn words(error: &StoreError) -> String {
    format!("the store failed: {error}")
}

impl World {
    async fn take(&mut self, step: &Step) -> Verdict {
        match step {
            Step::Enqueue {
                client,
                batch,
                twice,
            } => {
                for _ in 0..=usize::from(*twice) {
                    self.enqueue(*client, batch).await?;
                }
            }
            Step::Lease {
                clients,
                max,
                duration,
                cap,
                crash,
            } => {
                let request = LeaseRequest {
                    max: *max,
                    duration: *duration,
                    max_per_endpoint: *cap,
                };
                self.lease(clients, &request).await?;
                for client in clients.iter().filter(|_| *crash) {
                    self.clients[*client].crash();
                }
            }
            Step::Record {
                client,
                outcomes,
                together,
                twice,
            } => {
                let picks: Vec<_> = outcomes.iter().map(|(pick, _)| pick).collect();
                let leases = self.clients[*client].pick(&picks);
                let ends = outcomes.iter().map(|(_, end)| *end);
                for _ in 0..=usize::from(*twice) {
                    self.record(*client, leases.iter().cloned().zip(ends.clone()), *together)
                        .await?;
                }
                self.clients[*client].spend(&leases);
            }
            Step::Release {
                client,
                leases,
                twice,
            } => {
                let picks: Vec<_> = leases.iter().collect();
                let leases = self.clients[*client].pick(&picks);
                for _ in 0..=usize::from(*twice) {
                    self.release(*client, &leases).await?;
                }
                self.clients[*client].spend(&leases);
            }
            Step::Replay {
                client,
                finished,
                delivery,
                foreign,
                twice,
            } => {
                let key = self.to_replay(*finished, *delivery, *foreign);
                for _ in 0..=usize::from(*twice) {
                    self.replay(*client, key.as_ref()).await?;
                }
            }
            Step::Skip {
                client,
                blocking,
                delivery,
                twice,
            } => {
                let key = self.to_skip(*blocking, *delivery);
                for _ in 0..=usize::from(*twice) {
                    self.skip(*client, key.as_ref()).await?;
                }
            }
            Step::Retain { client, age, count } => {
                let (age, count) = (*age, *count);
                self.retain(*client, Retention { age, count }).await?;
            }
            Step::Quota {
                client,
                tenant: name,
                most,
            } => {
                self.reference.cap(tenant(name), *most);
                self.set_quotas(*client).await?;
            }
            Step::Wait { client } => self.wait(*client).await?,
            Step::Pass => tokio::time::sleep(SHORT + SHORT / 2).await,
            Step::Jump { by } => {
                let jumped = self.subject.jump(*by).await;
                jumped.map_err(|error| words(&error))?;
            }
        }
        Ok(())
    }

    /// Which delivery is meant, if there is any.
    fn to_replay(&self, finished: bool, delivery: Index, foreign: bool) -> Option<Key> {
        let known = self.reference.deliveries.iter();
        let known: Vec<_> = known
            .filter(|(_, known)| !finished || matches!(known.place, Place::Finished { .. }))
            .map(|(key, _)| key)
            .collect();
        if known.is_empty() {
            return None;
        }
        let (mut owner, id) = delivery.get(&known).to_owned().clone();
        if foreign {
            let names = TENANTS.iter().cycle();
            let next = names.skip_while(|name| **name != owner.as_str()).nth(1);
            owner = tenant(next.unwrap());
        }
        Some((owner, id))
    }

    /// Which delivery is meant, if there is any.
    fn to_skip(&self, blocking: bool, delivery: Index) -> Option<Key> {
        let known = if blocking {
            self.reference.blocking()
        } else {
            self.reference.deliveries.keys().cloned().collect()
        };
        (!known.is_empty()).then(|| delivery.get(&known).clone())
    }

    /// Calls, and says within which window of the store's clock the answer was given.
    async fn call<T>(
        &mut self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<(Window, T), String> {
        let from = self.subject.now();
        let answer = work.await.map_err(|error| words(&error))?;
        let to = self.subject.now();
        let window = Window {
            from: from.as_microsecond(),
            to: to.as_microsecond(),
        };
        Ok((window, answer))
    }

    async fn enqueue(&mut self, client: usize, batch: &[Push]) -> Verdict {
        let now = self.subject.now();
        let batch: Vec<_> = batch.iter().map(|push| pushed(push, now)).collect();
        let store = Arc::clone(&self.clients[client].store);
        let (call, answers) = self.call(store.enqueue(&batch)).await?;
        self.reference.enqueue(call, &batch, &answers)?;
        self.announced(call).await
    }

    async fn lease(&mut self, clients: &[usize], request: &LeaseRequest) -> Verdict {
        let stores: Vec<_> = clients
            .iter()
            .map(|n| Arc::clone(&self.clients[*n].store))
            .collect();
        let calls = try_join_all(stores.iter().map(|store| store.lease(request)));
        let (call, batches) = self.call(calls).await?;
        self.reference.lease(call, request, &batches)?;
        for (client, batch) in clients.iter().zip::<Vec<Batch>>(batches) {
            let client = &mut self.clients[*client];
            client.idle = batch.leased.len() < request.max;
            client.held.extend(batch.leased);
        }
        Ok(())
    }

    async fn record(
        &mut self,
        client: usize,
        ends: impl Iterator<Item = (Leased, End)>,
        together: bool,
    ) -> Verdict {
        let now = self.subject.now();
        let outcomes: Vec<_> = ends.map(|(leased, end)| ended(leased, end, now)).collect();
        if outcomes.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.clients[client].store);
        let (call, answers): (Window, Vec<Recorded>) = if together {
            let calls = outcomes.chunks(1).map(|one| store.record(one));
            let (call, answers) = self.call(try_join_all(calls)).await?;
            (call, answers.into_iter().flatten().collect())
        } else {
            self.call(store.record(&outcomes)).await?
        };
        promise!(
            answers.len() == outcomes.len(),
            "{} outcomes have {} answers",
            outcomes.len(),
            answers.len()
        );
        let outcomes: Vec<_> = outcomes.into_iter().zip(answers).collect();
        self.reference.record(call, &outcomes, together)?;
        self.announced(call).await
    }

    async fn release(&mut self, client: usize, leases: &[Leased]) -> Verdict {
        let store = Arc::clone(&self.clients[client].store);
        let (call, ()) = self.call(store.release(leases)).await?;
        self.reference.release(call, leases);
        self.announced(call).await
    }

    async fn replay(&mut self, client: usize, key: Option<&Key>) -> Verdict {
        let Some(key) = key else { return Ok(()) };
        let store = Arc::clone(&self.clients[client].store);
        let replay = async { Ok(store.replay(&key.0, &key.1).await) };
        let (call, answer) = self.call(replay).await?;
        self.reference.replay(call, key, &answer)?;
        self.announced(call).await
    }

    async fn skip(&mut self, client: usize, key: Option<&Key>) -> Verdict {
        let Some(key) = key else { return Ok(()) };
        let store = Arc::clone(&self.clients[client].store);
        let skip = async { Ok(store.skip(&key.0, &key.1).await) };
        let (call, answer) = self.call(skip).await?;
        self.reference.skip(call, key, &answer)?;
        self.announced(call).await
    }

    async fn retain(&mut self, client: usize, retention: Retention) -> Verdict {
        let store = Arc::clone(&self.clients[client].store);
        let all = async {
            let mut removed = 0;
            loop {
                match store.retain(&retention).await? {
                    0 => return Ok(removed),
                    more => removed += more,
                }
            }
        };
        let (call, removed) = self.call(all).await?;
        let mut kept = BTreeSet::new();
        for name in TENANTS {
            let records = self.list(name, None, 100).await?;
            kept.extend(
                records
                    .into_iter()
                    .map(|r| (r.delivery.tenant_id, r.delivery.id)),
            );
        }
        self.reference.retain(call, retention, removed, &kept)
    }

    async fn set_quotas(&mut self, client: usize) -> Verdict {
        let quota = |(tenant, most): (&TenantId, &usize)| {
            let max_in_flight = NonZeroU32::new(u32::try_from(*most).unwrap());
            let weight = Weight::new(u8::try_from(*most).unwrap()).unwrap();
            let quota = Quota {
                weight,
                max_in_flight,
            };
            (tenant.clone(), quota)
        };
        let quotas: Vec<_> = self.reference.caps.iter().map(quota).collect();
        let store = Arc::clone(&self.clients[client].store);
        let (_, ()) = self.call(store.set_quotas(&quotas)).await?;
        Ok(())
    }

    /// Waiting ends in time, whether there is work or not.
    async fn wait(&self, client: usize) -> Verdict {
        let store = &self.clients[client].store;
        let waiting = store.wait_for_work(Duration::from_millis(3));
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(ended) => ended.map_err(|error| words(&error)),
            Err(_) => Err(format!("waiting for 3 ms took {PATIENCE:?}")),
        }
    }

    /// When the call made something available, everybody hears of it, if all are idle: while one is
    /// not, it is the one to come. What becomes available by time is not announced: workers know from
    /// their leases when to come again.
    async fn announced(&self, call: Window) -> Verdict {
        if !self.reference.offers(call) || self.clients.iter().any(|client| !client.idle) {
            return Ok(());
        }
        let waits = self.clients.iter().map(|client| {
            let waiting = client.store.wait_for_work(PATIENCE * 10);
            tokio::time::timeout(PATIENCE, waiting)
        });
        for waited in join_all(waits).await {
            match waited {
                Ok(ended) => ended.map_err(|error| words(&error))?,
                Err(_) => return Err(format!("nobody heard of new work for {PATIENCE:?}")),
            }
        }
        Ok(())
    }

    /// Gives everything back, works everything off that becomes due, and removes it.
    async fn finish(&mut self) -> Verdict {
        for client in 0..CLIENTS {
            let mut leases = std::mem::take(&mut self.clients[client].held);
            leases.append(&mut self.clients[client].lost);
            self.release(client, &leases).await?;
            self.look().await?;
        }
        let store = Arc::clone(&self.clients[0].store);
        let report = store.check(CheckRequest::default()).await;
        let report = report.map_err(|error| words(&error))?;
        promise!(report.is_sound(), "a check finds {:?}", report.findings);
        self.reference.caps.clear();
        self.set_quotas(0).await?;
        let can_jump = self.subject.leap().await.map_err(|error| words(&error))?;
        if !can_jump {
            tokio::time::sleep(SHORT + SHORT / 2).await;
        }
        let everything = LeaseRequest {
            max: 1000,
            duration: LONG,
            max_per_endpoint: 1000,
        };
        // Each call gets everything but what waits for its turn, so the last gets nothing.
        loop {
            for key in self.reference.blocking() {
                self.skip(0, Some(&key)).await?;
            }
            self.lease(&[0], &everything).await?;
            self.look().await?;
            let leases = std::mem::take(&mut self.clients[0].held);
            if leases.is_empty() {
                break;
            }
            let ends = leases.into_iter().map(|leased| (leased, End::Succeeded));
            self.record(0, ends, false).await?;
            self.look().await?;
        }
        self.retain(
            0,
            Retention {
                age: Duration::ZERO,
                count: 0,
            },
        )
        .await?;
        self.look().await?;
        promise!(
            !can_jump || self.reference.deliveries.is_empty(),
            "{} deliveries are left when all time is over",
            self.reference.deliveries.len()
        );
        Ok(())
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn event_id(id: &str) -> EventId {
    EventId::new(id).unwrap()
}

/// What a producer pushes: the version shows in every part that may differ.
fn pushed(push: &Push, now: Timestamp) -> EventDeliveries {
    // Large payloads go another way to Redis than small ones.
    let space = " ".repeat(if push.version.is_multiple_of(2) {
        5000
    } else {
        0
    });
    let event: Event = EventDraft {
        id: push.event.to_owned(),
        tenant: push.tenant.to_owned(),
        event_type: format!("invoice.v{}", push.version),
        payload: Bytes::from(format!("{{ \"version\" :\n {}.00{space} }}", push.version)),
        occurred_at: Some(format!("2026-01-31T09:30:0{}.123456789Z", push.version)),
        deliver_at: push
            .later
            .map(|wait| now.checked_add(wait).unwrap().to_string()),
        ..EventDraft::default()
    }
    .accept(now, 8192)
    .unwrap();
    let deliveries = push.endpoints.iter().map(|name| {
        let endpoint = EndpointId::new(name).unwrap();
        let id = default_id(&event.tenant_id, &event.id, &endpoint);
        Delivery {
            sequence: push.sequence.map(|(name, blocks)| Sequence {
                key: OrderingKey::new(name).ok(),
                on_dead_letter: if blocks {
                    OnDeadLetter::Block
                } else {
                    OnDeadLetter::Skip
                },
                max_attempts: None,
            }),
            ..Delivery::pending(id, &event, endpoint, None, now)
        }
    });
    EventDeliveries {
        deliveries: deliveries.collect(),
        extends: push.extends,
        event: event.clone(),
    }
}

/// How an attempt ended, by the clock of the worker. Times are as exact as stores keep them.
fn ended(leased: Leased, end: End, now: Timestamp) -> Outcome {
    let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap();
    let number = leased.delivery.attempt + 1;
    let status = match end {
        End::Succeeded => 204,
        End::DeadLetter => 410,
        End::Failed(_) | End::Overdue | End::Stalled => 503,
    };
    let mut attempt = match end {
        End::Stalled => {
            let (took, class) = (Duration::from_secs(10), ErrorClass::Timeout);
            Attempt::unanswered(number, now, took, class, "no answer in time")
        }
        _ => Attempt::answered(number, now, Duration::from_millis(7), status),
    };
    let conclusion = match end {
        End::Succeeded => Conclusion::Succeeded,
        End::DeadLetter => Conclusion::DeadLetter,
        End::Failed(wait) => Conclusion::Failed {
            next_at: now.checked_add(wait).unwrap(),
        },
        End::Overdue | End::Stalled => Conclusion::Failed {
            next_at: now.checked_sub(LONG).unwrap(),
        },
    };
    if let Conclusion::Failed { next_at } = conclusion {
        attempt.next_at = Some(next_at);
    }
    Outcome {
        delivery: leased.delivery.concluded(&attempt, conclusion, now),
        leased,
        attempt,
    }
}
