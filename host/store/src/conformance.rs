//! The suite that every store passes: one function per promise of [`Store`].
//!
//! A backend's test file names a function that makes an empty store, and gets one test per promise:
//!
//! ```text
//! async fn make() -> (Guard, Arc<dyn Store>) { … }
//! wasmhook_store::conformance_tests!(make);
//! ```
//!
//! The guard is dropped after the test; it may hold a server or a folder. The functions panic when a
//! promise is broken. They wait for real time, but no assertion depends on the machine's speed.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a broken promise is a panic here"
)]

mod sequences;

pub use sequences::*;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::delivery::default_id;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{
    Conclusion, Delivery, DeliveryId, DeliveryState, EndpointId, ErrorClass, Event, EventDraft,
    EventId, PluginUse, Quota, TenantId, Weight,
};

use crate::{
    Batch, EventDeliveries, Filter, LeaseRequest, Leased, Outcome, Record, Recorded, RejectedEvent,
    Retention, Store, StoreError,
};

/// Makes one test per promise for the store that `$make` makes: an `async fn` that returns a guard
/// and an `Arc<dyn Store>` on an empty store.
#[macro_export]
macro_rules! conformance_tests {
    ($make:path) => {
        $crate::conformance_tests! { @each $make;
            enqueue_is_idempotent
            enqueue_answers_in_order
            an_event_is_extended
            an_event_without_deliveries_is_harmless
            all_deliveries_of_an_event_appear_together
            a_lease_returns_the_event_byte_for_byte
            nothing_is_leased_twice_at_once
            concurrent_workers_share_without_overlap
            a_lost_lease_cannot_record
            a_second_record_is_refused
            a_released_lease_cannot_record
            a_lost_lease_cannot_release
            an_expired_lease_goes_back_where_it_was
            a_failed_delivery_waits_for_its_time
            a_scheduled_event_waits_for_its_time
            a_time_that_is_past_is_now
            a_scheduled_event_wakes_who_waits
            a_failed_delivery_can_wait_longer_with_its_last_attempt
            an_attempt_need_not_use_up_a_retry
            next_due_is_reported
            a_dead_letter_stays
            a_dead_letter_is_replayed
            a_succeeded_delivery_is_replayed
            replay_keeps_to_its_tenant_and_to_finished_deliveries
            attempts_are_kept_in_order_with_every_field
            the_state_is_visible_all_along
            lists_page_to_the_end_newest_first
            lists_filter_by_state
            paging_survives_changes
            tenants_are_isolated
            tenants_take_turns
            a_late_tenant_is_served_at_once
            endpoints_take_turns
            an_endpoint_has_a_limit_in_flight
            a_tenant_has_a_limit_in_flight
            a_new_limit_counts_what_is_in_flight
            a_raised_limit_wakes_who_waits
            rejected_events_are_kept_newest_first
            retention_by_age
            retention_by_count
            retention_spares_what_was_replayed
            the_backlog_is_counted
            known_events_are_known
            work_wakes_who_waits
            waiting_ends_by_itself
            large_batches_pass
            the_store_is_alive
            a_sequence_goes_one_after_the_other
            a_batch_is_in_order
            a_turn_outlasts_failures_and_lost_leases
            a_dead_letter_lets_the_next_go
            a_blocking_dead_letter_is_waited_for
            a_blocking_dead_letter_is_skipped_by_hand
            a_replayed_delivery_takes_its_old_place
            a_scheduled_delivery_keeps_its_turn
            the_end_of_one_wakes_who_waits
            sequences_are_in_order_whoever_works
        }
    };
    (@each $make:path; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (guard, store) = $make().await;
                $crate::conformance::$name(store).await;
                drop(guard);
            }
        )*
    };
}

/// Makes one test per promise about turns, for a store of one shard: between shards what is asked for is
/// parted evenly.
#[macro_export]
macro_rules! turn_tests {
    ($make:path) => {
        $crate::conformance_tests! { @each $make;
            few_places_are_shared_in_turn
            weighty_tenants_get_more_turns
        }
    };
}

/// The store under test.
pub type Subject = Arc<dyn Store>;

/// Long enough never to expire in a test.
const LONG: Duration = Duration::from_mins(1);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(150);
/// A bound against hanging, nothing more.
const PATIENCE: Duration = Duration::from_secs(20);

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn endpoint(name: &str) -> EndpointId {
    EndpointId::new(name).unwrap()
}

/// Now, as exact as a store needs to be.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

/// An event with a payload that a parser and printer would change.
pub fn event(tenant: &str, id: &str) -> Event {
    EventDraft {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        event_type: "invoice.paid".to_owned(),
        payload: Bytes::from(format!("{{ \"id\":\"{id}\",\n \"amount\" : 1.00 }}")),
        ..EventDraft::default()
    }
    .accept(now(), 1 << 20)
    .unwrap()
}

/// An event with its deliveries to these endpoints.
pub fn to(event: &Event, endpoints: &[&str]) -> EventDeliveries {
    let deliveries = endpoints
        .iter()
        .map(|name| {
            let endpoint = endpoint(name);
            let id = default_id(&event.tenant_id, &event.id, &endpoint);
            Delivery::pending(id, event, endpoint, None, now())
        })
        .collect();
    EventDeliveries {
        event: event.clone(),
        deliveries,
        extends: false,
    }
}

async fn put(store: &Subject, tenant: &str, id: &str, endpoints: &[&str]) -> Vec<DeliveryId> {
    let batch = to(&event(tenant, id), endpoints);
    let ids = batch.deliveries.iter().map(|d| d.id.clone()).collect();
    let answer = store.enqueue(&[batch]).await.unwrap();
    let expected = Enqueued {
        created: endpoints.len(),
        duplicate: false,
    };
    assert_eq!(answer, [expected]);
    ids
}

async fn take_with(store: &Subject, max: usize, duration: Duration, per_endpoint: usize) -> Batch {
    store
        .lease(&LeaseRequest {
            max,
            duration,
            max_per_endpoint: per_endpoint,
        })
        .await
        .unwrap()
}

async fn take(store: &Subject, max: usize) -> Vec<Leased> {
    take_with(store, max, LONG, 1000).await.leased
}

/// Leases one delivery, waiting until there is one.
async fn take_one(store: &Subject, duration: Duration) -> Leased {
    let start = Instant::now();
    loop {
        if let Some(leased) = take_with(store, 1, duration, 1000).await.leased.pop() {
            return leased;
        }
        assert!(start.elapsed() < PATIENCE, "nothing became due");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn answered(leased: &Leased, status: u16) -> Attempt {
    Attempt::answered(
        leased.delivery.attempt + 1,
        now(),
        Duration::from_millis(7),
        status,
    )
}

fn concluded(leased: Leased, attempt: Attempt, conclusion: Conclusion) -> Outcome {
    let delivery = leased.delivery.concluded(&attempt, conclusion, now());
    Outcome {
        leased,
        delivery,
        attempt,
    }
}

fn succeeded(leased: Leased) -> Outcome {
    let attempt = answered(&leased, 204);
    concluded(leased, attempt, Conclusion::Succeeded)
}

fn dead(leased: Leased) -> Outcome {
    let attempt = answered(&leased, 410);
    concluded(leased, attempt, Conclusion::DeadLetter)
}

fn failed(leased: Leased, wait: Duration) -> Outcome {
    let next_at = now().saturating_add(wait).unwrap();
    let mut attempt = answered(&leased, 503);
    attempt.next_at = Some(next_at);
    concluded(leased, attempt, Conclusion::Failed { next_at })
}

async fn record(store: &Subject, outcome: Outcome) -> Recorded {
    let answers = store.record(&[outcome]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

async fn written(store: &Subject, outcome: Outcome) {
    assert_eq!(record(store, outcome).await, Recorded::Written);
}

async fn get(store: &Subject, tenant_name: &str, id: &DeliveryId) -> Record {
    store
        .get(&tenant(tenant_name), id)
        .await
        .unwrap()
        .expect("the delivery is kept")
}

async fn state(store: &Subject, tenant: &str, id: &DeliveryId) -> DeliveryState {
    get(store, tenant, id).await.delivery.state
}

/// Every page of a list; fails if pages never end.
async fn list(
    store: &Subject,
    tenant_name: &str,
    state: Option<DeliveryState>,
    limit: usize,
) -> Vec<Record> {
    let mut filter = Filter {
        tenant: tenant(tenant_name),
        state,
        cursor: None,
        limit,
    };
    let mut all = Vec::new();
    for _ in 0..1000 {
        let page = store.list(&filter).await.unwrap();
        assert!(page.records.len() <= limit, "a page is longer than asked");
        all.extend(page.records);
        match page.next {
            Some(next) => filter.cursor = Some(next),
            None => return all,
        }
    }
    panic!("the list never ends");
}

fn ids(records: &[Record]) -> Vec<DeliveryId> {
    records.iter().map(|r| r.delivery.id.clone()).collect()
}

async fn retain_all(store: &Subject, age: Duration, count: usize) -> usize {
    let mut removed = 0;
    for _ in 0..1000 {
        let more = store.retain(&Retention { age, count }).await.unwrap();
        if more == 0 {
            return removed;
        }
        removed += more;
    }
    panic!("retention never ends");
}

/// The same event twice creates nothing the second time, whatever endpoints it names.
pub async fn enqueue_is_idempotent(store: Subject) {
    put(&store, "acme", "evt_1", &["main"]).await;
    let duplicate = Enqueued {
        created: 0,
        duplicate: true,
    };
    let mut again = to(&event("acme", "evt_1"), &["main"]);
    assert_eq!(store.enqueue(&[again]).await.unwrap(), [duplicate]);
    again = to(&event("acme", "evt_1"), &["main", "other"]);
    assert_eq!(store.enqueue(&[again.clone()]).await.unwrap(), [duplicate]);
    // The same id of another tenant is another event.
    put(&store, "globex", "evt_1", &["main"]).await;

    let leased = take(&store, 10).await;
    assert_eq!(leased.len(), 2);
    for leased in leased {
        written(&store, succeeded(leased)).await;
    }
    assert_eq!(store.enqueue(&[again]).await.unwrap(), [duplicate]);
    assert!(take(&store, 10).await.is_empty());
}

/// Answers come in the order of the batch, also when an event is in it twice.
pub async fn enqueue_answers_in_order(store: Subject) {
    put(&store, "acme", "known", &["main"]).await;
    let batch = [
        to(&event("acme", "a"), &["main", "other"]),
        to(&event("globex", "b"), &["main"]),
        to(&event("acme", "known"), &["main"]),
        to(&event("initech", "c"), &["x", "y", "z"]),
        to(&event("acme", "a"), &["main"]),
    ];
    let answers = store.enqueue(&batch).await.unwrap();
    let plain: Vec<_> = answers.iter().map(|a| (a.created, a.duplicate)).collect();
    assert_eq!(
        plain,
        [(2, false), (1, false), (0, true), (3, false), (0, true)]
    );
    assert!(store.enqueue(&[]).await.unwrap().is_empty());
    assert!(store.record(&[]).await.unwrap().is_empty());
    store.release(&[]).await.unwrap();
}

/// A known event takes more deliveries when it is extended, and leaves known ones alone.
pub async fn an_event_is_extended(store: Subject) {
    let first = put(&store, "acme", "evt_1", &["main"]).await;
    let leased = take(&store, 10).await.pop().unwrap();
    written(&store, succeeded(leased)).await;

    let mut more = to(&event("acme", "evt_1"), &["main", "other", "third"]);
    more.extends = true;
    let answer = store.enqueue(&[more.clone()]).await.unwrap();
    let expected = Enqueued {
        created: 2,
        duplicate: false,
    };
    assert_eq!(answer, [expected]);
    assert_eq!(
        state(&store, "acme", &first[0]).await,
        DeliveryState::Succeeded
    );
    let answer = store.enqueue(&[more]).await.unwrap();
    let expected = Enqueued {
        created: 0,
        duplicate: false,
    };
    assert_eq!(answer, [expected]);

    let leased = take(&store, 10).await;
    let endpoints: BTreeSet<_> = leased
        .iter()
        .map(|l| l.delivery.endpoint_id.to_string())
        .collect();
    assert_eq!(
        endpoints,
        BTreeSet::from(["other".to_owned(), "third".to_owned()])
    );

    // The payload lives as long as the last of them.
    let mut leased = leased.into_iter();
    written(&store, succeeded(leased.next().unwrap())).await;
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 2);
    let id = EventId::new("evt_1").unwrap();
    assert!(store.event(&tenant("acme"), &id).await.unwrap().is_some());
    written(&store, succeeded(leased.next().unwrap())).await;
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 1);
    assert!(store.event(&tenant("acme"), &id).await.unwrap().is_none());

    // An unknown event may be extended as well: it is new then.
    let mut fresh = to(&event("acme", "evt_2"), &["main"]);
    fresh.extends = true;
    let answer = store.enqueue(&[fresh]).await.unwrap();
    let expected = Enqueued {
        created: 1,
        duplicate: false,
    };
    assert_eq!(answer, [expected]);
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// An event that goes nowhere creates no delivery and disturbs nothing.
pub async fn an_event_without_deliveries_is_harmless(store: Subject) {
    let answer = store
        .enqueue(&[to(&event("acme", "evt_1"), &[])])
        .await
        .unwrap();
    assert_eq!(answer[0].created, 0);
    assert!(!answer[0].duplicate);
    assert!(take(&store, 10).await.is_empty());
    assert!(list(&store, "acme", None, 10).await.is_empty());
    let mut more = to(&event("acme", "evt_1"), &["main"]);
    more.extends = true;
    assert_eq!(store.enqueue(&[more]).await.unwrap()[0].created, 1);
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// A reader sees all deliveries of an event or none.
pub async fn all_deliveries_of_an_event_appear_together(store: Subject) {
    let endpoints = ["a", "b", "c", "d", "e"];
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..40 {
                put(&store, "acme", &format!("evt_{n}"), &endpoints).await;
            }
        })
    };
    loop {
        let finished = writer.is_finished();
        let filter = Filter {
            tenant: tenant("acme"),
            state: None,
            cursor: None,
            limit: 500,
        };
        let page = store.list(&filter).await.unwrap();
        let mut per_event = BTreeMap::<EventId, usize>::new();
        for record in page.records {
            *per_event.entry(record.delivery.event_id).or_default() += 1;
        }
        for (event, count) in &per_event {
            assert_eq!(*count, endpoints.len(), "{event} was seen in part");
        }
        if finished {
            assert_eq!(per_event.len(), 40);
            break;
        }
    }
    writer.await.unwrap();
}

/// The leased event equals the pushed one, payload bytes included.
pub async fn a_lease_returns_the_event_byte_for_byte(store: Subject) {
    let mut pushed = event("acme", "évt / 1 ☂");
    pushed.occurred_at = "2026-01-31T09:30:00.123456789Z".parse().unwrap();
    let mut batch = to(&pushed, &["main", "öther"]);
    batch.deliveries[1].resolver = Some(PluginUse {
        name: "20-route".to_owned(),
        digest: "ef".repeat(32),
        cpu_us: 77,
        verdict: Some("resolve".to_owned()),
    });
    store.enqueue(std::slice::from_ref(&batch)).await.unwrap();
    let leased = take(&store, 10).await;
    assert_eq!(leased.len(), 2);
    for leased in &leased {
        assert_eq!(leased.event, pushed);
        assert_eq!(leased.event.payload.bytes(), pushed.payload.bytes());
        let sent = batch
            .deliveries
            .iter()
            .find(|d| d.id == leased.delivery.id)
            .unwrap();
        assert_eq!(leased.delivery.endpoint_id, sent.endpoint_id);
        assert_eq!(leased.delivery.resolver, sent.resolver);
        assert_eq!(leased.delivery.tenant_id, sent.tenant_id);
        assert_eq!(leased.delivery.event_id, sent.event_id);
        assert_eq!(leased.delivery.event_type, sent.event_type);
        assert_eq!(leased.delivery.state, DeliveryState::Pending);
        assert_eq!(leased.delivery.attempt, 0);
        assert!(leased.attempts.is_empty());
    }
    // Read back as leased, also by who has to read it from the store.
    store.release(&leased).await.unwrap();
    let mut again = take(&store, 10).await;
    let mut leased = leased;
    again.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
    leased.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
    for (again, leased) in again.iter().zip(&leased) {
        let again = Delivery {
            updated_at: leased.delivery.updated_at,
            ..again.delivery.clone()
        };
        assert_eq!(again, leased.delivery);
    }
    assert!(again.iter().all(|leased| leased.event == pushed));
    assert_eq!(again.len(), 2);
    let kept = store.event(&pushed.tenant_id, &pushed.id).await.unwrap();
    assert_eq!(kept, Some(pushed));
}

/// What is leased is not leased again while the lease holds.
pub async fn nothing_is_leased_twice_at_once(store: Subject) {
    for n in 0..10 {
        put(&store, "acme", &format!("evt_{n}"), &["main"]).await;
    }
    let first = take(&store, 6).await;
    let second = take(&store, 6).await;
    assert_eq!((first.len(), second.len()), (6, 4));
    let all: HashSet<_> = first
        .iter()
        .chain(&second)
        .map(|l| l.delivery.id.clone())
        .collect();
    assert_eq!(all.len(), 10);
    assert!(take(&store, 6).await.is_empty());
}

/// Many workers at once never hold one delivery together, and nothing is left over.
pub async fn concurrent_workers_share_without_overlap(store: Subject) {
    let batch: Vec<_> = (0..200)
        .map(|n| to(&event(&format!("t{}", n % 7), &format!("evt_{n}")), &["a"]))
        .collect();
    store.enqueue(&batch).await.unwrap();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let leased = take(&store, 7).await;
                    if leased.is_empty() {
                        return mine;
                    }
                    mine.extend(leased.iter().map(|l| l.delivery.id.clone()));
                    let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
                    let answers = store.record(&outcomes).await.unwrap();
                    assert!(answers.iter().all(|a| *a == Recorded::Written));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    assert_eq!(all.len(), 200);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 200);
}

/// After expiry and a new lease, the old holder can write nothing.
pub async fn a_lost_lease_cannot_record(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let old = take_one(&store, SHORT).await;
    let new = take_one(&store, LONG).await;
    assert_ne!(old.token, new.token);
    assert_eq!(record(&store, dead(old)).await, Recorded::LeaseLost);
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Leased);
    assert_eq!(kept.delivery.attempt, 0);
    assert!(kept.attempts.is_empty());
    written(&store, succeeded(new)).await;
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::Succeeded);
}

/// A lease ends with its first record, also within one batch.
pub async fn a_second_record_is_refused(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let leased = take_one(&store, LONG).await;
    let answers = store
        .record(&[succeeded(leased.clone()), dead(leased.clone())])
        .await
        .unwrap();
    assert_eq!(answers, [Recorded::Written, Recorded::LeaseLost]);
    assert_eq!(record(&store, dead(leased)).await, Recorded::LeaseLost);
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Succeeded);
    assert_eq!(kept.attempts.len(), 1);
}

/// Who has released cannot record, and the delivery is due at once.
pub async fn a_released_lease_cannot_record(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let leased = take_one(&store, LONG).await;
    store.release(std::slice::from_ref(&leased)).await.unwrap();
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::Pending);
    assert_eq!(
        record(&store, dead(leased.clone())).await,
        Recorded::LeaseLost
    );
    let again = take(&store, 1).await;
    assert_eq!(again.len(), 1);
    assert_eq!(record(&store, dead(leased)).await, Recorded::LeaseLost);
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::Leased);
}

/// Releasing a lost lease takes nothing from who holds the delivery now.
pub async fn a_lost_lease_cannot_release(store: Subject) {
    put(&store, "acme", "evt_1", &["main"]).await;
    let old = take_one(&store, SHORT).await;
    let new = take_one(&store, LONG).await;
    store.release(&[old.clone(), old]).await.unwrap();
    assert!(take(&store, 1).await.is_empty());
    store.release(&[new.clone(), new]).await.unwrap();
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// An expired lease puts the delivery back to pending or failed, with its attempts as they were.
pub async fn an_expired_lease_goes_back_where_it_was(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    take_one(&store, SHORT).await;
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.delivery.state, DeliveryState::Pending);
    assert_eq!(leased.delivery.attempt, 0);
    written(&store, failed(leased, Duration::ZERO)).await;

    let leased = take_one(&store, SHORT).await;
    assert_eq!(leased.delivery.state, DeliveryState::Failed);
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.delivery.state, DeliveryState::Failed);
    assert_eq!(leased.delivery.attempt, 1);
    assert_eq!(leased.attempts.len(), 1);
    store.release(&[leased]).await.unwrap();
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::Failed);
}

/// A failed delivery is not leased before its time, and is after.
pub async fn a_failed_delivery_waits_for_its_time(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let wait = Duration::from_millis(400);
    let leased = take_one(&store, LONG).await;
    let before = Instant::now();
    written(&store, failed(leased, wait)).await;
    let early = take(&store, 10).await;
    if before.elapsed() < Duration::from_millis(300) {
        assert!(early.is_empty(), "leased before its time");
        assert_eq!(state(&store, "acme", &id).await, DeliveryState::Failed);
        let again = take_one(&store, LONG).await;
        assert!(before.elapsed() >= Duration::from_millis(350));
        assert_eq!(again.delivery.state, DeliveryState::Failed);
        assert_eq!(again.delivery.attempt, 1);
        assert_eq!(again.attempts.len(), 1);
    }
}

/// An event that is to be delivered at a time, with its deliveries.
fn scheduled(id: &str, wait: Duration, endpoints: &[&str]) -> EventDeliveries {
    let at = now().checked_add(wait).unwrap();
    let event = Event {
        deliver_at: Some(at),
        ..event("acme", id)
    };
    to(&event, endpoints)
}

/// A scheduled event is kept and counted as waiting, is not leased before its time, and is after.
pub async fn a_scheduled_event_waits_for_its_time(store: Subject) {
    let wait = Duration::from_millis(400);
    let before = Instant::now();
    let item = scheduled("evt_1", wait, &["main", "audit"]);
    let at = item.event.deliver_at;
    let id = item.deliveries[0].id.clone();
    let answers = store.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(answers[0].created, 2);
    let again = store.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert!(again[0].duplicate, "pushed twice");
    let far = scheduled("evt_2", Duration::from_hours(24 * 300), &["main"]);
    let last = far.deliveries[0].id.clone();
    store.enqueue(&[far]).await.unwrap();
    let early = take_with(&store, 10, LONG, 10).await;
    if before.elapsed() < Duration::from_millis(300) {
        assert!(early.leased.is_empty(), "leased before its time");
        assert!(early.next_due.unwrap() <= wait + Duration::from_millis(100));
        let kept = get(&store, "acme", &id).await.delivery;
        assert_eq!(kept.state, DeliveryState::Pending);
        assert_eq!(Some(kept.next_at), at);
        assert!(kept.is_scheduled());
        assert_eq!(store.backlog().await.unwrap().waiting, 3);
        let kept = store.event(&tenant("acme"), &item.event.id).await.unwrap();
        assert_eq!(kept.unwrap().deliver_at, at);
        let first = take_one(&store, LONG).await;
        assert!(before.elapsed() >= Duration::from_millis(350));
        let second = take_one(&store, LONG).await;
        for leased in [first, second] {
            assert_eq!(leased.event, item.event);
            assert_eq!(leased.delivery.state, DeliveryState::Pending);
            assert_eq!(leased.delivery.attempt, 0);
            written(&store, succeeded(leased)).await;
        }
        let end = take_with(&store, 10, LONG, 10).await;
        assert!(end.leased.is_empty());
        assert!(end.next_due.unwrap() > Duration::from_hours(24 * 299));
    }
    assert_eq!(state(&store, "acme", &last).await, DeliveryState::Pending);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// A delivery whose time has passed when it is enqueued is due at once.
pub async fn a_time_that_is_past_is_now(store: Subject) {
    let mut item = scheduled("evt_1", Duration::from_millis(1), &["main"]);
    let made = now() - Duration::from_hours(1);
    item.deliveries[0].created_at = made;
    item.deliveries[0].next_at = made + Duration::from_mins(1);
    assert!(item.deliveries[0].is_scheduled());
    store.enqueue(&[item]).await.unwrap();
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// Who waits for something later hears of an event that is scheduled sooner.
pub async fn a_scheduled_event_wakes_who_waits(store: Subject) {
    let late = scheduled("evt_1", PATIENCE * 10, &["main"]);
    store.enqueue(&[late]).await.unwrap();
    assert!(take(&store, 10).await.is_empty());
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            let soon = scheduled("evt_2", SHORT * 2, &["main"]);
            let at = soon.event.deliver_at.unwrap();
            store.enqueue(&[soon]).await.unwrap();
            at
        })
    };
    let start = Instant::now();
    let mut wait = PATIENCE * 10;
    let leased = loop {
        store.wait_for_work(wait).await.unwrap();
        assert!(start.elapsed() < PATIENCE, "slept through");
        let batch = take_with(&store, 10, LONG, 10).await;
        if !batch.leased.is_empty() {
            break batch.leased;
        }
        wait = batch.next_due.unwrap();
    };
    let at = writer.await.unwrap();
    assert!(
        Timestamp::now() >= at - Duration::from_millis(2),
        "too early"
    );
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].event.id.as_str(), "evt_2");
}

/// A lease call says when the next delivery becomes due or the next lease ends.
pub async fn next_due_is_reported(store: Subject) {
    assert_eq!(take_with(&store, 10, LONG, 10).await.next_due, None);
    put(&store, "acme", "evt_1", &["main"]).await;
    let leased = take_one(&store, LONG).await;
    let due = take_with(&store, 10, LONG, 10).await.next_due.unwrap();
    assert!(due <= LONG && due > LONG / 2, "the lease ends in {due:?}");
    written(&store, failed(leased, Duration::from_secs(20))).await;
    let due = take_with(&store, 10, LONG, 10).await.next_due.unwrap();
    assert!(
        due <= Duration::from_secs(21) && due > Duration::from_secs(5),
        "the retry is due in {due:?}"
    );
}

/// A delivery that is put off has its time moved, and no attempt added.
pub async fn a_failed_delivery_can_wait_longer_with_its_last_attempt(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    for _ in 0..2 {
        let leased = take_one(&store, LONG).await;
        written(&store, failed(leased, Duration::ZERO)).await;
    }
    let before = get(&store, "acme", &id).await;
    let mut leased = take_one(&store, LONG).await;
    let last = leased.attempts.pop().unwrap();
    let mut delivery = leased.delivery.clone();
    delivery.next_at = now() + Duration::from_secs(60);
    written(
        &store,
        Outcome {
            leased,
            delivery,
            attempt: last,
        },
    )
    .await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Failed);
    assert_eq!(
        (kept.delivery.attempt, &kept.attempts),
        (2, &before.attempts)
    );
    let batch = take_with(&store, 10, LONG, 10).await;
    assert!(batch.leased.is_empty(), "it waits on");
}

/// Where retries are counted from is kept with the outcome.
pub async fn an_attempt_need_not_use_up_a_retry(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let mut outcome = failed(take_one(&store, LONG).await, Duration::ZERO);
    outcome.delivery.replayed_at_attempt = 1;
    written(&store, outcome).await;
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.delivery.replayed_at_attempt, 1);
    assert_eq!(
        get(&store, "acme", &id).await.delivery.replayed_at_attempt,
        1
    );
}

/// A dead letter is never leased by itself.
pub async fn a_dead_letter_stays(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    let batch = take_with(&store, 10, LONG, 10).await;
    assert!(batch.leased.is_empty());
    assert_eq!(batch.next_due, None);
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
    assert_eq!(kept.delivery.attempt, 1);
    assert_eq!(kept.attempts[0].status_code, Some(410));
    assert_eq!(kept.lease_until, None);
}

async fn replays(store: Subject, finish: fn(Leased) -> Outcome) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    for round in 1..=2u32 {
        let leased = take_one(&store, LONG).await;
        assert_eq!(leased.delivery.attempt, round - 1);
        written(&store, finish(leased)).await;
        let finished = get(&store, "acme", &id).await;
        store.replay(&tenant("acme"), &id).await.unwrap();
        let kept = get(&store, "acme", &id).await;
        assert_eq!(kept.delivery.state, DeliveryState::Pending);
        assert_eq!(kept.delivery.attempt, round);
        assert_eq!(kept.delivery.replayed_at_attempt, round);
        assert_eq!(kept.delivery.created_at, finished.delivery.created_at);
        assert_eq!(kept.attempts, finished.attempts);
        assert_eq!(store.backlog().await.unwrap().waiting, 1);
    }
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.event, event_as(&leased.event, "acme", "evt_1"));
    written(&store, succeeded(leased)).await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Succeeded);
    let numbers: Vec<_> = kept.attempts.iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

/// The event as made here, with the time of the one found.
fn event_as(found: &Event, tenant: &str, id: &str) -> Event {
    Event {
        occurred_at: found.occurred_at,
        ..event(tenant, id)
    }
}

/// A replayed dead letter is pending, due, and keeps its attempts.
pub async fn a_dead_letter_is_replayed(store: Subject) {
    replays(store, dead).await;
}

/// So is a replayed success.
pub async fn a_succeeded_delivery_is_replayed(store: Subject) {
    replays(store, succeeded).await;
}

/// Only finished deliveries of the asking tenant can be replayed.
pub async fn replay_keeps_to_its_tenant_and_to_finished_deliveries(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let not_finished = |error| match error {
        StoreError::NotFinished(state) => state,
        other => panic!("expected NotFinished, found {other}"),
    };
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Pending);
    let leased = take_one(&store, LONG).await;
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Leased);
    written(&store, failed(leased, Duration::ZERO)).await;
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Failed);
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    for (tenant, id) in [
        (&globex, id.clone()),
        (&acme, DeliveryId::new("whdel_none").unwrap()),
    ] {
        let error = store.replay(tenant, &id).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound), "{error}");
    }
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::DeadLetter);
    store.replay(&acme, &id).await.unwrap();
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Pending);
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// Attempts are handed back with the lease and kept in order, nothing left out.
pub async fn attempts_are_kept_in_order_with_every_field(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let mut expected = Vec::new();
    for number in 1..=4u32 {
        let leased = take_one(&store, LONG).await;
        assert_eq!(leased.attempts, expected);
        assert_eq!(leased.delivery.attempt, number - 1);
        let mut attempt = Attempt::unanswered(
            number,
            now(),
            Duration::from_millis(u64::from(number) * 11),
            ErrorClass::Timeout,
            "the receiver did not answer in time",
        );
        if number % 2 == 0 {
            attempt.status_code = Some(599);
            attempt.response_excerpt = Some("später ☂".to_owned());
            attempt.plugins = vec![
                PluginUse {
                    name: "10-redact".to_owned(),
                    digest: "ab".repeat(32),
                    cpu_us: 1234,
                    verdict: Some("deliver".to_owned()),
                },
                PluginUse {
                    name: "20-sum".to_owned(),
                    digest: "cd".repeat(32),
                    cpu_us: 0,
                    verdict: None,
                },
            ];
        }
        let next_at = now();
        attempt.next_at = Some(next_at);
        expected.push(attempt.clone());
        written(
            &store,
            concluded(leased, attempt, Conclusion::Failed { next_at }),
        )
        .await;
        let kept = get(&store, "acme", &id).await;
        assert_eq!(kept.attempts, expected);
        assert_eq!(kept.delivery.attempt, number);
        assert_eq!(kept.delivery.state, DeliveryState::Failed);
    }
}

/// `get` shows each state, and when the lease ends.
pub async fn the_state_is_visible_all_along(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Pending);
    assert_eq!(kept.lease_until, None);
    let leased = take_one(&store, LONG).await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Leased);
    let until = kept.lease_until.expect("a lease has an end");
    assert!(until > kept.delivery.created_at);
    let listed = list(&store, "acme", None, 10).await;
    assert_eq!(listed[0].delivery.state, DeliveryState::Leased);
    assert_eq!(listed[0].lease_until, Some(until));
    written(&store, failed(leased, LONG)).await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Failed);
    assert_eq!(kept.lease_until, None);
    assert_eq!(kept.delivery.next_at, kept.attempts[0].next_at.unwrap());
    assert!(store.get(&tenant("globex"), &id).await.unwrap().is_none());
}

/// Pages of any size cover everything once, newest first.
pub async fn lists_page_to_the_end_newest_first(store: Subject) {
    let mut expected = Vec::new();
    for n in 0..23 {
        expected.extend(put(&store, "acme", &format!("evt_{n}"), &["main"]).await);
        put(&store, "globex", &format!("evt_{n}"), &["main"]).await;
        // The order is by time; a store may keep milliseconds.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    expected.reverse();
    for limit in [1, 2, 7, 23, 24, 500] {
        let all = list(&store, "acme", None, limit).await;
        assert_eq!(ids(&all), expected, "in pages of {limit}");
    }
    assert!(list(&store, "nobody", None, 10).await.is_empty());

    // Many written at the same moment page as well.
    let batch: Vec<_> = (0..60)
        .map(|n| to(&event("initech", &format!("evt_{n}")), &["a", "b"]))
        .collect();
    store.enqueue(&batch).await.unwrap();
    for limit in [7, 50, 119, 120] {
        let all = list(&store, "initech", None, limit).await;
        assert_eq!(all.len(), 120, "in pages of {limit}");
        let different: HashSet<_> = ids(&all).into_iter().collect();
        assert_eq!(different.len(), 120, "in pages of {limit}");
        assert!(all.is_sorted_by_key(|r| std::cmp::Reverse(r.delivery.created_at)));
    }
}

/// Lists hold exactly the deliveries in the state asked for.
pub async fn lists_filter_by_state(store: Subject) {
    for n in 0..20 {
        put(&store, "acme", &format!("evt_{n}"), &["main"]).await;
    }
    let mut expected = BTreeMap::<&str, HashSet<DeliveryId>>::new();
    let leased = take(&store, 15).await;
    assert_eq!(leased.len(), 15);
    let mut outcomes = Vec::new();
    for (n, leased) in leased.into_iter().enumerate() {
        let id = leased.delivery.id.clone();
        let state = match n % 5 {
            0 | 1 => {
                outcomes.push(succeeded(leased));
                DeliveryState::Succeeded
            }
            2 => {
                outcomes.push(failed(leased, LONG));
                DeliveryState::Failed
            }
            3 => {
                outcomes.push(dead(leased));
                DeliveryState::DeadLetter
            }
            _ => DeliveryState::Leased,
        };
        expected.entry(state.as_str()).or_default().insert(id);
    }
    store.record(&outcomes).await.unwrap();
    let everything = list(&store, "acme", None, 6).await;
    assert_eq!(everything.len(), 20);
    for state in DeliveryState::ALL {
        for limit in [2, 100] {
            let found = list(&store, "acme", Some(state), limit).await;
            assert!(found.iter().all(|r| r.delivery.state == state));
            let found_ids: HashSet<_> = ids(&found).into_iter().collect();
            assert_eq!(found_ids.len(), found.len(), "{state} holds one twice");
            match expected.get(state.as_str()) {
                Some(expected) => assert_eq!(&found_ids, expected, "{state}"),
                None => assert_eq!(found.len(), 5, "{state}"),
            }
        }
    }
}

/// A delivery whose state changes between two pages is neither lost nor repeated.
pub async fn paging_survives_changes(store: Subject) {
    let mut expected = Vec::new();
    for n in 0..12 {
        expected.extend(put(&store, "acme", &format!("evt_{n}"), &["main"]).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    expected.reverse();
    let mut filter = Filter {
        tenant: tenant("acme"),
        state: None,
        cursor: None,
        limit: 5,
    };
    let first = store.list(&filter).await.unwrap();
    let mut seen = ids(&first.records);
    let outcomes: Vec<_> = take(&store, 12).await.into_iter().map(succeeded).collect();
    store.record(&outcomes).await.unwrap();
    put(&store, "acme", "newer", &["main"]).await;
    filter.cursor = first.next;
    while filter.cursor.is_some() {
        let page = store.list(&filter).await.unwrap();
        seen.extend(ids(&page.records));
        filter.cursor = page.next;
    }
    assert_eq!(seen, expected);
}

/// No tenant sees another's deliveries or events.
pub async fn tenants_are_isolated(store: Subject) {
    let acme = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let globex = put(&store, "globex", "evt_1", &["main"]).await.remove(0);
    assert_ne!(acme, globex);
    let names = store.tenants().await.unwrap();
    assert_eq!(names, [tenant("acme"), tenant("globex")]);
    let found = store.get(&tenant("globex"), &acme).await.unwrap();
    assert!(found.is_none());
    assert_eq!(ids(&list(&store, "acme", None, 10).await), [acme]);
    assert_eq!(ids(&list(&store, "globex", None, 10).await), [globex]);
    put(&store, "acme", "only_acme", &["main"]).await;
    let id = EventId::new("only_acme").unwrap();
    let found = store.event(&tenant("globex"), &id).await.unwrap();
    assert!(found.is_none());
    let found = store.event(&tenant("acme"), &id).await.unwrap();
    assert!(found.is_some());
}

async fn flood(store: &Subject, tenant: &str, endpoint: &str, count: usize) {
    let batch: Vec<_> = (0..count)
        .map(|n| to(&event(tenant, &format!("{endpoint}_{n}")), &[endpoint]))
        .collect();
    store.enqueue(&batch).await.unwrap();
}

fn by_tenant(leased: &[Leased], name: &str) -> usize {
    leased
        .iter()
        .filter(|l| l.delivery.tenant_id.as_str() == name)
        .count()
}

/// A tenant with little work is not held up by one with much.
pub async fn tenants_take_turns(store: Subject) {
    flood(&store, "acme", "main", 200).await;
    flood(&store, "globex", "main", 5).await;
    let leased = take(&store, 20).await;
    assert_eq!(leased.len(), 20);
    assert_eq!(by_tenant(&leased, "globex"), 5);
    // One at a time as well.
    flood(&store, "initech", "main", 3).await;
    let mut seen = 0;
    for _ in 0..16 {
        seen += by_tenant(&take(&store, 1).await, "initech");
    }
    assert_eq!(seen, 3);
}

/// A tenant that comes late waits for one turn, not for the backlog.
pub async fn a_late_tenant_is_served_at_once(store: Subject) {
    for n in 0..5 {
        flood(&store, &format!("busy{n}"), "main", 50).await;
    }
    assert_eq!(take(&store, 25).await.len(), 25);
    flood(&store, "late", "main", 1).await;
    let leased = take(&store, 30).await;
    assert_eq!(leased.len(), 30);
    assert_eq!(by_tenant(&leased, "late"), 1);
}

/// Endpoints of one tenant share its turn.
pub async fn endpoints_take_turns(store: Subject) {
    flood(&store, "acme", "busy", 100).await;
    flood(&store, "acme", "quiet", 4).await;
    let leased = take(&store, 10).await;
    assert_eq!(leased.len(), 10);
    let quiet = leased
        .iter()
        .filter(|l| l.delivery.endpoint_id.as_str() == "quiet")
        .count();
    assert!(quiet >= 4, "{quiet} of the quiet endpoint's 4");
}

/// No more than the limit is in flight for one endpoint, and each end of a lease makes room.
pub async fn an_endpoint_has_a_limit_in_flight(store: Subject) {
    flood(&store, "acme", "main", 20).await;
    flood(&store, "acme", "other", 2).await;
    let (others, mut held): (Vec<_>, Vec<_>) = take_with(&store, 10, LONG, 3)
        .await
        .leased
        .into_iter()
        .partition(|l| l.delivery.endpoint_id.as_str() == "other");
    assert_eq!((held.len(), others.len()), (3, 2));
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());

    written(&store, succeeded(held.pop().unwrap())).await;
    let more = take_with(&store, 10, LONG, 3).await.leased;
    assert_eq!(more.len(), 1, "a record makes room");
    held.extend(more);
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());

    written(&store, failed(held.pop().unwrap(), LONG)).await;
    written(&store, dead(held.pop().unwrap())).await;
    let more = take_with(&store, 10, SHORT, 3).await.leased;
    assert_eq!(more.len(), 2);
    store.release(&held).await.unwrap();
    held = take_with(&store, 1, LONG, 3).await.leased;
    assert_eq!(held.len(), 1, "a release makes room");

    // The two short leases expire.
    let start = Instant::now();
    let mut after = 0;
    while after < 2 {
        after += take_with(&store, 10, LONG, 3).await.leased.len();
        assert!(start.elapsed() < PATIENCE, "expiry made no room");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(after, 2);
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());
}

/// What tenants may have in flight.
async fn limit(store: &Subject, limits: &[(&str, u32)]) {
    let quota = |(name, most): &(&str, u32)| {
        let max_in_flight = std::num::NonZeroU32::new(*most);
        let quota = Quota {
            max_in_flight,
            ..Quota::default()
        };
        (tenant(name), quota)
    };
    let quotas: Vec<_> = limits.iter().map(quota).collect();
    store.set_quotas(&quotas).await.unwrap();
}

/// A tenant with a limit has no more in flight, over all its endpoints; what ends, in whatever way, makes
/// room, and others are not concerned.
pub async fn a_tenant_has_a_limit_in_flight(store: Subject) {
    limit(&store, &[("acme", 3), ("nobody", 1)]).await;
    flood(&store, "acme", "main", 10).await;
    flood(&store, "acme", "other", 10).await;
    flood(&store, "globex", "main", 5).await;
    let leased = take(&store, 100).await;
    let (mut held, others): (Vec<_>, Vec<_>) = leased
        .into_iter()
        .partition(|l| l.delivery.tenant_id.as_str() == "acme");
    assert_eq!((held.len(), others.len()), (3, 5));
    let main = held
        .iter()
        .filter(|l| l.delivery.endpoint_id.as_str() == "main");
    assert!((1..=2).contains(&main.count()), "endpoints take turns");
    assert!(take(&store, 100).await.is_empty());

    written(&store, succeeded(held.pop().unwrap())).await;
    assert!(take(&store, 100).await.len() == 1, "a record makes room");
    written(&store, failed(held.pop().unwrap(), LONG)).await;
    let short = take_with(&store, 100, SHORT, 100).await.leased;
    assert_eq!(short.len(), 1, "a failure makes room");
    store.release(&held).await.unwrap();
    assert_eq!(take(&store, 100).await.len(), 1, "a release makes room");
    take_one(&store, LONG).await;
    assert!(take(&store, 100).await.is_empty(), "one lease expired");
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    // No limit any more.
    limit(&store, &[]).await;
    assert_eq!(take(&store, 100).await.len(), 15);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// A limit that comes later, or becomes lower, counts what is in flight already.
pub async fn a_new_limit_counts_what_is_in_flight(store: Subject) {
    flood(&store, "acme", "main", 10).await;
    let mut held = take(&store, 4).await;
    limit(&store, &[("acme", 5)]).await;
    limit(&store, &[("acme", 5)]).await;
    held.extend(take(&store, 100).await);
    assert_eq!(held.len(), 5);
    limit(&store, &[("acme", 3)]).await;
    assert!(take(&store, 100).await.is_empty());
    for left in [4, 3] {
        written(&store, succeeded(held.pop().unwrap())).await;
        assert_eq!(held.len(), left);
        assert!(take(&store, 100).await.is_empty(), "{left} are in flight");
    }
    written(&store, succeeded(held.pop().unwrap())).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    limit(&store, &[("acme", 4)]).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Who asks for less than there are tenants or endpoints serves them all in the end.
pub async fn few_places_are_shared_in_turn(store: Subject) {
    for name in ["acme", "globex", "initech"] {
        flood(&store, name, "main", 25).await;
    }
    let mut leased = Vec::new();
    for _ in 0..15 {
        leased.extend(take(&store, 2).await);
    }
    assert_eq!(leased.len(), 30);
    for name in ["acme", "globex", "initech"] {
        let got = by_tenant(&leased, name);
        assert!((9..=11).contains(&got), "{got} of {name}");
    }
    limit(&store, &[("acme", 1), ("globex", 1), ("initech", 1)]).await;
    for name in ["main", "audit", "other"] {
        flood(&store, "umbrella", name, 25).await;
    }
    let mut leased = Vec::new();
    for _ in 0..15 {
        leased.extend(take(&store, 2).await);
    }
    assert_eq!(by_tenant(&leased, "umbrella"), 30);
    for name in ["main", "audit", "other"] {
        let of = |l: &&Leased| l.delivery.endpoint_id.as_str() == name;
        let got = leased.iter().filter(of).count();
        assert!((9..=11).contains(&got), "{got} of {name}");
    }
}

/// Turns are by weight, whether workers ask for much or little at once.
pub async fn weighty_tenants_get_more_turns(store: Subject) {
    let quota = Quota {
        weight: Weight::new(3).unwrap(),
        max_in_flight: None,
    };
    store
        .set_quotas(&[(tenant("globex"), quota)])
        .await
        .unwrap();
    for name in ["acme", "globex", "initech"] {
        flood(&store, name, "main", 100).await;
    }
    for (max, times) in [(1, 40), (2, 20), (4, 10), (7, 10), (50, 1)] {
        let mut leased = Vec::new();
        for _ in 0..times {
            leased.extend(take(&store, max).await);
        }
        assert_eq!(leased.len(), max * times);
        // Three in five, but for a turn that is not over.
        let got = by_tenant(&leased, "globex");
        let fair = max * times * 3 / 5;
        assert!(
            got.abs_diff(fair) <= 3,
            "{got} of {} at {max}, not about {fair}",
            leased.len()
        );
        let (one, other) = (by_tenant(&leased, "acme"), by_tenant(&leased, "initech"));
        assert!(one.abs_diff(other) <= 2, "{one} and {other} at {max}");
        store.release(&leased).await.unwrap();
    }
}

/// Who waits hears that a tenant may have more in flight.
pub async fn a_raised_limit_wakes_who_waits(store: Subject) {
    limit(&store, &[("acme", 1)]).await;
    flood(&store, "acme", "main", 2).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    assert!(take(&store, 100).await.is_empty());
    // Not busy for nothing meanwhile.
    let start = Instant::now();
    while start.elapsed() < SHORT * 2 {
        let before = Instant::now();
        store.wait_for_work(SHORT).await.unwrap();
        let early = before.elapsed() < SHORT / 2;
        assert!(take(&store, 100).await.is_empty());
        assert!(!early || start.elapsed() < SHORT, "woken again and again");
    }
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            limit(&store, &[("acme", 2)]).await;
        })
    };
    await_work(&store).await;
    writer.await.unwrap();
}

/// Refused events are listed newest first, whole.
pub async fn rejected_events_are_kept_newest_first(store: Subject) {
    assert!(store.rejected(10).await.unwrap().is_empty());
    let make = |n: usize| RejectedEvent {
        at: now(),
        source: "stream".to_owned(),
        event_id: format!("evt_{n}"),
        tenant: String::new(),
        event_type: "a.b".to_owned(),
        payload_bytes: n,
        code: "invalid_event".to_owned(),
        reason: "invalid webhook event: field `tenant`: ☂".to_owned(),
    };
    let events: Vec<_> = (0..5).map(make).collect();
    store.reject(&events[..3]).await.unwrap();
    store.reject(&events[3..]).await.unwrap();
    store.reject(&[]).await.unwrap();
    let mut expected = events;
    expected.reverse();
    assert_eq!(store.rejected(10).await.unwrap(), expected);
    assert_eq!(store.rejected(2).await.unwrap(), expected[..2]);
    assert!(store.rejected(0).await.unwrap().is_empty());

    // The newest of very many are there, and the list is bounded.
    let many: Vec<_> = (0..30_000).map(make).collect();
    for chunk in many.chunks(1000) {
        store.reject(chunk).await.unwrap();
    }
    let kept = store.rejected(50_000).await.unwrap();
    assert!(
        (100..30_000).contains(&kept.len()),
        "{} rejected events are kept",
        kept.len()
    );
    assert_eq!(kept[0].event_id, "evt_29999");
}

/// Old finished deliveries go, with their event once it is the last; open ones stay.
pub async fn retention_by_age(store: Subject) {
    let fan_out = put(&store, "acme", "evt_1", &["a", "b"]).await;
    let open = put(&store, "acme", "evt_2", &["c"]).await.remove(0);
    let mut kept_back = None;
    for leased in take(&store, 10).await {
        match leased.delivery.endpoint_id.as_str() {
            "a" => written(&store, succeeded(leased)).await,
            "b" => kept_back = Some(leased),
            _ => store.release(&[leased]).await.unwrap(),
        }
    }
    let hour = Duration::from_hours(1);
    assert_eq!(retain_all(&store, hour, 1000).await, 0);
    tokio::time::sleep(SHORT).await;
    let age = Duration::from_millis(50);
    assert_eq!(retain_all(&store, age, 1000).await, 1);
    let acme = tenant("acme");
    assert!(store.get(&acme, &fan_out[0]).await.unwrap().is_none());
    let event_id = EventId::new("evt_1").unwrap();
    assert!(store.event(&acme, &event_id).await.unwrap().is_some());
    let known = [(acme.clone(), event_id.clone())];
    assert_eq!(store.known(&known).await.unwrap(), [true]);

    written(&store, dead(kept_back.unwrap())).await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(retain_all(&store, age, 1000).await, 1);
    assert!(store.get(&acme, &fan_out[1]).await.unwrap().is_none());
    assert!(store.event(&acme, &event_id).await.unwrap().is_none());
    assert_eq!(store.known(&known).await.unwrap(), [false]);
    assert_eq!(state(&store, "acme", &open).await, DeliveryState::Pending);
    assert_eq!(ids(&list(&store, "acme", None, 10).await), [open]);

    // A forgotten event is new again.
    let leased = take(&store, 10).await;
    assert_eq!(leased.len(), 1);
    store
        .record(&leased.into_iter().map(succeeded).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(retain_all(&store, Duration::ZERO, 1000).await, 1);
    assert!(store.tenants().await.unwrap().is_empty());
    put(&store, "acme", "evt_1", &["a"]).await;
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// Per tenant, the latest finished deliveries are kept.
pub async fn retention_by_count(store: Subject) {
    let mut acme = Vec::new();
    for n in 0..9 {
        acme.extend(put(&store, "acme", &format!("evt_{n}"), &["main"]).await);
        let leased = take_one(&store, LONG).await;
        let outcome = if n % 2 == 0 {
            succeeded(leased)
        } else {
            dead(leased)
        };
        written(&store, outcome).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let globex = put(&store, "globex", "evt_1", &["main"]).await;
    let leased = take_one(&store, LONG).await;
    written(&store, succeeded(leased)).await;
    let open = put(&store, "acme", "open", &["main"]).await;

    let hour = Duration::from_hours(1);
    assert_eq!(retain_all(&store, hour, 4).await, 5);
    let mut expected: Vec<_> = acme[5..].iter().chain(&open).cloned().collect();
    expected.reverse();
    assert_eq!(ids(&list(&store, "acme", None, 100).await), expected);
    assert_eq!(ids(&list(&store, "globex", None, 100).await), globex);
    let backlog = store.backlog().await.unwrap();
    assert_eq!(backlog.succeeded + backlog.dead_letter, 5);
}

/// What was replayed is open again, and its age counts from its second end.
pub async fn retention_spares_what_was_replayed(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let other = put(&store, "acme", "evt_2", &["other"]).await.remove(0);
    let outcomes: Vec<_> = take(&store, 10).await.into_iter().map(dead).collect();
    store.record(&outcomes).await.unwrap();
    store.replay(&tenant("acme"), &id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(retain_all(&store, Duration::ZERO, 100).await, 1);
    assert!(store.get(&tenant("acme"), &other).await.unwrap().is_none());
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::Pending);

    // Finished at one time, replayed, and finished again much later: the second time counts.
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    store.replay(&tenant("acme"), &id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let leased = take_one(&store, LONG).await;
    let before = Instant::now();
    written(&store, succeeded(leased)).await;
    let removed = retain_all(&store, Duration::from_secs(1), 100).await;
    if before.elapsed() < Duration::from_millis(800) {
        assert_eq!(removed, 0);
        assert_eq!(state(&store, "acme", &id).await, DeliveryState::Succeeded);
    }
    assert_eq!(
        retain_all(&store, Duration::from_hours(1), 0).await,
        1 - removed
    );
}

/// The backlog counts each delivery once, in its state.
pub async fn the_backlog_is_counted(store: Subject) {
    assert_eq!(store.backlog().await.unwrap(), crate::Backlog::default());
    flood(&store, "acme", "main", 6).await;
    flood(&store, "globex", "main", 4).await;
    let mut leased = take(&store, 7).await;
    written(&store, succeeded(leased.pop().unwrap())).await;
    written(&store, succeeded(leased.pop().unwrap())).await;
    written(&store, dead(leased.pop().unwrap())).await;
    written(&store, failed(leased.pop().unwrap(), LONG)).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!(store.fullness().await.unwrap().waiting, 7);
    assert_eq!(backlog.waiting, 4);
    assert_eq!(backlog.leased, 3);
    assert_eq!(backlog.succeeded, 2);
    assert_eq!(backlog.dead_letter, 1);
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 3);
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.succeeded, backlog.dead_letter), (0, 0));
    assert_eq!((backlog.waiting, backlog.leased), (4, 3));
}

/// `known` answers per tenant and in order.
pub async fn known_events_are_known(store: Subject) {
    put(&store, "acme", "evt_1", &["main"]).await;
    put(&store, "globex", "evt_2", &["main"]).await;
    let asked: Vec<_> = [
        ("acme", "evt_1"),
        ("acme", "evt_2"),
        ("globex", "evt_2"),
        ("globex", "evt_1"),
        ("nobody", "evt_1"),
        ("acme", "evt_1"),
    ]
    .into_iter()
    .map(|(name, id)| (tenant(name), EventId::new(id).unwrap()))
    .collect();
    let known = store.known(&asked).await.unwrap();
    assert_eq!(known, [true, false, true, false, false, true]);
    assert!(store.known(&[]).await.unwrap().is_empty());
}

/// Who waits returns when another task enqueues, replays or releases.
pub async fn work_wakes_who_waits(store: Subject) {
    assert!(take(&store, 10).await.is_empty());
    let id = {
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                tokio::time::sleep(SHORT).await;
                put(&store, "acme", "evt_1", &["main"]).await.remove(0)
            })
        };
        await_work(&store).await;
        writer.await.unwrap()
    };
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    assert!(take(&store, 10).await.is_empty());
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            store.replay(&tenant("acme"), &id).await.unwrap();
        })
    };
    await_work(&store).await;
    writer.await.unwrap();
    // Work that came between the last lease and the wait is not slept through.
    put(&store, "acme", "evt_2", &["main"]).await;
    await_work(&store).await;
}

/// Waits as a worker does, until something can be leased; returns it unused.
async fn await_work(store: &Subject) {
    let start = Instant::now();
    loop {
        let before = Instant::now();
        store.wait_for_work(PATIENCE * 2).await.unwrap();
        assert!(before.elapsed() < PATIENCE, "slept through");
        let leased = take(store, 10).await;
        if !leased.is_empty() {
            store.release(&leased).await.unwrap();
            return;
        }
        assert!(start.elapsed() < PATIENCE, "woken for nothing");
    }
}

/// Waiting without work ends after its time.
pub async fn waiting_ends_by_itself(store: Subject) {
    take(&store, 1).await;
    let waiting = store.wait_for_work(Duration::from_millis(100));
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("waiting ends")
        .unwrap();
}

/// Batches far larger than usual pass whole.
pub async fn large_batches_pass(store: Subject) {
    let batch: Vec<_> = (0..5000)
        .map(|n| to(&event("acme", &format!("evt_{n}")), &["a"]))
        .collect();
    let answers = store.enqueue(&batch).await.unwrap();
    assert_eq!(answers.len(), 5000);
    assert!(answers.iter().all(|a| a.created == 1));
    let wide: Vec<_> = (0..300).map(|n| format!("endpoint_{n}")).collect();
    let wide: Vec<_> = wide.iter().map(String::as_str).collect();
    put(&store, "acme", "wide", &wide).await;
    let leased = take_with(&store, 6000, LONG, 10_000).await.leased;
    assert_eq!(leased.len(), 5300);
    let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
    let answers = store.record(&outcomes).await.unwrap();
    assert!(answers.iter().all(|a| *a == Recorded::Written));
    assert_eq!(store.backlog().await.unwrap().succeeded, 5300);
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 5300);
    assert!(store.tenants().await.unwrap().is_empty());
}

/// The store answers, and its warnings are sentences.
pub async fn the_store_is_alive(store: Subject) {
    store.ping().await.unwrap();
    for warning in store.warnings().await.unwrap() {
        assert!(warning.len() > 20, "{warning}");
    }
}
