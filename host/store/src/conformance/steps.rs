//! What the promises are told in: making events, leasing, ending, reading.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::delivery::default_id;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{
    Conclusion, Delivery, DeliveryId, DeliveryState, EndpointId, ErrorClass, Event, EventDraft,
    Quota, TenantId,
};

use super::Subject;
use crate::{
    Batch, EventDeliveries, Filter, LeaseRequest, Leased, Outcome, Record, Recorded, Retention,
};

/// Long enough never to expire in a test.
pub(super) const LONG: Duration = Duration::from_mins(1);

/// Short enough to be waited for.
pub(super) const SHORT: Duration = Duration::from_millis(150);

/// A bound against hanging, nothing more.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(super) fn endpoint(name: &str) -> EndpointId {
    EndpointId::new(name).unwrap()
}

/// Now, as exact as a store needs to be.
pub(super) fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

/// An event with a payload that a parser and printer would change.
pub fn event(tenant: &str, id: &str) -> Event {
    draft(tenant, id).accept(now(), 1 << 20).unwrap()
}

/// An event with a payload of some KiB that says `version`.
pub fn large_event(tenant: &str, id: &str, version: u8) -> Event {
    let filler = "x".repeat(5000);
    EventDraft {
        payload: Bytes::from(format!(
            "{{ \"version\":{version},\n \"filler\" : \"{filler}\" }}"
        )),
        ..draft(tenant, id)
    }
    .accept(now(), 1 << 20)
    .unwrap()
}

fn draft(tenant: &str, id: &str) -> EventDraft {
    EventDraft {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        event_type: "invoice.paid".to_owned(),
        payload: Bytes::from(format!("{{ \"id\":\"{id}\",\n \"amount\" : 1.00 }}")),
        ..EventDraft::default()
    }
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

pub(super) async fn put(
    store: &Subject,
    tenant: &str,
    id: &str,
    endpoints: &[&str],
) -> Vec<DeliveryId> {
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

pub(super) async fn take_with(
    store: &Subject,
    max: usize,
    duration: Duration,
    per_endpoint: usize,
) -> Batch {
    store
        .lease(&LeaseRequest {
            max,
            duration,
            max_per_endpoint: per_endpoint,
        })
        .await
        .unwrap()
}

pub(super) async fn take(store: &Subject, max: usize) -> Vec<Leased> {
    take_with(store, max, LONG, 1000).await.leased
}

/// Leases one delivery, waiting until there is one.
pub(super) async fn take_one(store: &Subject, duration: Duration) -> Leased {
    let start = Instant::now();
    loop {
        if let Some(leased) = take_with(store, 1, duration, 1000).await.leased.pop() {
            return leased;
        }
        assert!(start.elapsed() < PATIENCE, "nothing became due");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn answered(leased: &Leased, status: u16) -> Attempt {
    Attempt::answered(
        leased.delivery.attempt + 1,
        now(),
        Duration::from_millis(7),
        status,
    )
}

pub(super) fn concluded(leased: Leased, attempt: Attempt, conclusion: Conclusion) -> Outcome {
    let delivery = leased.delivery.concluded(&attempt, conclusion, now());
    Outcome {
        leased,
        delivery,
        attempt,
    }
}

/// The outcome of a delivery that its receiver took.
pub fn succeeded(leased: Leased) -> Outcome {
    let attempt = answered(&leased, 204);
    concluded(leased, attempt, Conclusion::Succeeded)
}

/// The outcome of a delivery that its receiver wants no more.
pub fn dead(leased: Leased) -> Outcome {
    let attempt = answered(&leased, 410);
    concluded(leased, attempt, Conclusion::DeadLetter)
}

pub(super) fn failed(leased: Leased, wait: Duration) -> Outcome {
    let next_at = now().saturating_add(wait).unwrap();
    let mut attempt = answered(&leased, 503);
    attempt.next_at = Some(next_at);
    concluded(leased, attempt, Conclusion::Failed { next_at })
}

/// The outcome of a delivery whose receiver did not answer in time. It is due again much later.
pub(super) fn unanswered(leased: Leased) -> Outcome {
    let next_at = now().saturating_add(LONG).unwrap();
    let (number, took) = (leased.delivery.attempt + 1, Duration::from_secs(10));
    let class = ErrorClass::Timeout;
    let mut attempt = Attempt::unanswered(number, now(), took, class, "no answer in time");
    attempt.next_at = Some(next_at);
    concluded(leased, attempt, Conclusion::Failed { next_at })
}

pub(super) async fn record(store: &Subject, outcome: Outcome) -> Recorded {
    let answers = store.record(&[outcome]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

pub(super) async fn written(store: &Subject, outcome: Outcome) {
    assert_eq!(record(store, outcome).await, Recorded::Written);
}

pub(super) async fn get(store: &Subject, tenant_name: &str, id: &DeliveryId) -> Record {
    store
        .get(&tenant(tenant_name), id)
        .await
        .unwrap()
        .expect("the delivery is kept")
}

pub(super) async fn state(store: &Subject, tenant: &str, id: &DeliveryId) -> DeliveryState {
    get(store, tenant, id).await.delivery.state
}

/// Every page of a list; fails if pages never end.
pub(super) async fn list(
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

pub(super) fn ids(records: &[Record]) -> Vec<DeliveryId> {
    records.iter().map(|r| r.delivery.id.clone()).collect()
}

pub(super) async fn retain_all(store: &Subject, age: Duration, count: usize) -> usize {
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

pub(super) async fn flood(store: &Subject, tenant: &str, endpoint: &str, count: usize) {
    let batch: Vec<_> = (0..count)
        .map(|n| to(&event(tenant, &format!("{endpoint}_{n}")), &[endpoint]))
        .collect();
    store.enqueue(&batch).await.unwrap();
}

pub(super) fn by_tenant(leased: &[Leased], name: &str) -> usize {
    leased
        .iter()
        .filter(|l| l.delivery.tenant_id.as_str() == name)
        .count()
}

/// What tenants may have in flight.
pub(super) async fn limit(store: &Subject, limits: &[(&str, u32)]) {
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

/// Waits as a worker does, until something can be leased; returns it unused.
pub(super) async fn await_work(store: &Subject) {
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
