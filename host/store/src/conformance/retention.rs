//! Promises about what is kept, and for how long.

use std::time::{Duration, Instant};

use wasmhook_core::{DeliveryState, EventId};

use super::Subject;
use super::steps::{
    LONG, SHORT, dead, flood, ids, list, put, retain_all, state, succeeded, take, take_one,
    take_with, tenant, written,
};

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

/// However many tenants there are, and however much one has.
pub async fn retention_reaches_every_tenant(store: Subject) {
    const TENANTS: usize = 250;
    let name = |n: usize| format!("tenant{n}");
    // What stays open is in nobody's way, though it was made first.
    for n in [0, 7] {
        put(&store, &name(n), "open", &["other"]).await;
    }
    for n in 0..TENANTS {
        flood(&store, &name(n), "main", 3).await;
    }
    flood(&store, "mountain", "main", 700).await;
    loop {
        let leased = take_with(&store, 500, LONG, 1000).await.leased;
        if leased.is_empty() {
            break;
        }
        let (open, done): (Vec<_>, Vec<_>) = leased
            .into_iter()
            .partition(|leased| leased.delivery.endpoint_id.as_str() == "other");
        let done: Vec<_> = done.into_iter().map(succeeded).collect();
        if !done.is_empty() {
            store.record(&done).await.unwrap();
        }
        assert!(open.len() <= 2);
    }
    let hour = Duration::from_hours(1);
    assert_eq!(retain_all(&store, hour, 2).await, TENANTS + 698);
    for n in 0..TENANTS {
        let open = usize::from([0, 7].contains(&n));
        assert_eq!(list(&store, &name(n), None, 10).await.len(), 2 + open);
    }
    assert_eq!(list(&store, "mountain", None, 10).await.len(), 2);
    assert_eq!(
        retain_all(&store, Duration::ZERO, 100).await,
        2 * TENANTS + 2
    );
    let mut left = store.tenants().await.unwrap();
    left.sort_unstable();
    assert_eq!(left, [tenant(&name(0)), tenant(&name(7))]);
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
