//! Promises about what can be read: records, lists, counts.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Conclusion, DeliveryId, DeliveryState, ErrorClass, EventId, PluginUse};

use super::Subject;
use super::steps::{
    LONG, concluded, dead, event, failed, flood, get, ids, list, now, put, retain_all, succeeded,
    take, take_one, tenant, to, written,
};
use crate::{Filter, RejectedEvent};

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

/// The store answers, and its warnings are sentences.
pub async fn the_store_is_alive(store: Subject) {
    store.ping().await.unwrap();
    for warning in store.warnings().await.unwrap() {
        assert!(warning.len() > 20, "{warning}");
    }
}
