//! Promises about what comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wasmhook_core::ports::Enqueued;
use wasmhook_core::{DeliveryState, EventId};

use super::Subject;
use super::steps::{
    LONG, event, large_event, list, put, retain_all, state, succeeded, take, take_with, tenant, to,
    written,
};
use crate::{EventDeliveries, Filter, Recorded};

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

/// Of events of any size the first with an id counts, whatever else is in its batch.
pub async fn large_events_are_enqueued_once(store: Subject) {
    let extending = |id: &str| EventDeliveries {
        extends: true,
        ..to(&large_event("acme", id, 1), &["main"])
    };
    let batch = [
        to(&large_event("acme", "evt_1", 1), &["main", "other"]),
        to(&large_event("acme", "evt_1", 2), &["main", "third"]),
        to(&large_event("acme", "evt_2", 1), &[]),
        to(&event("acme", "evt_3"), &["main"]),
        extending("evt_4"),
    ];
    let created = async |batch: &[EventDeliveries]| {
        let answers = store.enqueue(batch).await.unwrap();
        let plain = answers.iter().map(|a| (a.created, a.duplicate));
        plain.collect::<Vec<_>>()
    };
    let expected = [(2, false), (0, true), (0, false), (1, false), (1, false)];
    assert_eq!(created(&batch).await, expected);
    let batch = [
        to(&large_event("acme", "evt_1", 3), &["main", "third"]),
        to(&large_event("acme", "evt_5", 1), &["main"]),
        extending("evt_4"),
    ];
    let expected = [(0, true), (1, false), (0, false)];
    assert_eq!(created(&batch).await, expected);
    // Now that all are known, and as one of them is new.
    let expected = [(0, true), (0, true), (0, false)];
    assert_eq!(created(&batch).await, expected);
    let mut batch = batch.to_vec();
    batch.push(to(&large_event("acme", "evt_6", 1), &["main"]));
    assert_eq!(created(&batch).await.last(), Some(&(1, false)));

    let leased = take(&store, 20).await;
    let mut found: Vec<_> = leased
        .iter()
        .map(|leased| {
            let (event, endpoint) = (&leased.event, &leased.delivery.endpoint_id);
            (event.id.to_string(), endpoint.to_string(), event.clone())
        })
        .collect();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let expected = [
        ("evt_1", "main", 1),
        ("evt_1", "other", 1),
        ("evt_3", "main", 0),
        ("evt_4", "main", 1),
        ("evt_5", "main", 1),
        ("evt_6", "main", 1),
    ];
    assert_eq!(found.len(), expected.len());
    for ((id, endpoint, found), expected) in found.into_iter().zip(expected) {
        assert_eq!((id.as_str(), endpoint.as_str()), (expected.0, expected.1));
        let pushed = match expected.2 {
            0 => event("acme", expected.0),
            version => large_event("acme", expected.0, version),
        };
        assert_eq!(found.payload.bytes(), pushed.payload.bytes());
    }
    for leased in leased {
        written(&store, succeeded(leased)).await;
    }
    // Nothing of an event is left when its last delivery is gone.
    // A store may count an event that has none.
    assert!(retain_all(&store, Duration::ZERO, 0).await >= 6);
    for id in ["evt_1", "evt_4", "evt_6"] {
        let id = EventId::new(id).unwrap();
        assert!(store.event(&tenant("acme"), &id).await.unwrap().is_none());
    }
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
