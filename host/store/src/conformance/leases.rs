//! Promises about leases: whose a delivery is, and for how long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use wasmhook_core::{Delivery, DeliveryState, PluginUse};

use super::Subject;
use super::steps::{
    LONG, SHORT, dead, event, failed, get, put, record, state, succeeded, take, take_one, to,
    written,
};
use crate::Recorded;

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
