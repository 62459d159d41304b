//! What is done to a queue: enqueueing, leasing, ending, filling.

use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::Conclusion;
use wasmhook_core::attempt::Attempt;
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{CheckRequest, LeaseRequest, Leased, Outcome, Recorded, Store};

pub(crate) const LOOK: CheckRequest = CheckRequest {
    repair: false,
    gentle: false,
};

pub(crate) const REPAIR: CheckRequest = CheckRequest {
    repair: true,
    gentle: false,
};

pub(crate) const LONG: Duration = Duration::from_secs(600);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of a queue that [`fill`] filled: twelve that are due, and six that are leased.
pub(crate) const OPEN: usize = 18;

pub(crate) async fn put(store: &dyn Store, tenant: &str, id: &str, endpoints: &[&str]) {
    let batch = [to(&event(tenant, id), endpoints)];
    assert_eq!(
        store.enqueue(&batch).await.unwrap()[0].created,
        endpoints.len()
    );
}

/// Enqueues so many for the endpoint `main` of acme, forty at a time.
pub(crate) async fn put_many(store: &dyn Store, count: usize) {
    let events: Vec<usize> = (0..count).collect();
    for batch in events.chunks(40) {
        let item = |n| to(&event("acme", &format!("evt_{n}")), &["main"]);
        let batch: Vec<_> = batch.iter().map(item).collect();
        store.enqueue(&batch).await.unwrap();
    }
}

pub(crate) async fn take(store: &dyn Store, max: usize) -> Vec<Leased> {
    let request = LeaseRequest {
        max,
        duration: LONG,
        max_per_endpoint: 3,
    };
    store.lease(&request).await.unwrap().leased
}

pub(crate) fn end(leased: Leased, status: u16) -> Outcome {
    let now = Timestamp::now();
    let number = leased.delivery.attempt + 1;
    let attempt = Attempt::answered(number, now, Duration::ZERO, status);
    let conclusion = match status {
        204 => Conclusion::Succeeded,
        410 => Conclusion::DeadLetter,
        // 503 is due again at once, everything else much later.
        503 => Conclusion::Failed { next_at: now },
        _ => Conclusion::Failed {
            next_at: now + Duration::from_secs(3600),
        },
    };
    Outcome {
        delivery: leased.delivery.concluded(&attempt, conclusion, now),
        leased,
        attempt,
    }
}

pub(crate) async fn record(store: &dyn Store, outcome: Outcome) {
    let answers = store.record(&[outcome]).await.unwrap();
    assert_eq!(answers, [Recorded::Written]);
}

/// Deliveries in every state: per tenant three succeeded, three dead letters, three that wait for
/// long, six due and three leased, which fill an endpoint's places.
pub(crate) async fn fill(store: &dyn Store) -> Vec<Leased> {
    for tenant in ["acme", "globex"] {
        for n in 0..9 {
            put(store, tenant, &format!("evt_{n}"), &["main"]).await;
        }
    }
    for status in [204, 410, 500] {
        for leased in take(store, 6).await {
            record(store, end(leased, status)).await;
        }
    }
    for tenant in ["acme", "globex"] {
        for n in 9..18 {
            put(store, tenant, &format!("evt_{n}"), &["main"]).await;
        }
    }
    let held = take(store, 100).await;
    assert_eq!(held.len(), 6);
    held
}
