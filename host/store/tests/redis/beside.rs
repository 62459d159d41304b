//! Events that are written beside the call that enqueues them, and calls that do not come to their end.

use std::time::Duration;

use wasmhook_store::conformance::{event, large_event, succeeded, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{EventDeliveries, Leased, Retention, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{lease, on_one_shard, store};

const TOKEN: &str = "{wasmhook:0}:E";

/// How many deliveries each event of a batch gets, or none if it is known.
async fn enqueue(store: &RedisStore, batch: &[EventDeliveries]) -> Vec<Option<usize>> {
    let answers = store.enqueue(batch).await.unwrap();
    let created =
        |answer: &wasmhook_core::ports::Enqueued| (!answer.duplicate).then_some(answer.created);
    answers.iter().map(created).collect()
}

fn exists(server: &RedisServer, key: &str) -> bool {
    server.ask::<u8>(&["EXISTS", key]).unwrap() == 1
}

fn key(id: &str) -> String {
    format!("{{wasmhook:0}}:e:acme\0{id}")
}

/// Leaves behind what a call does whose function is missing.
async fn begin_without_end(server: &RedisServer, store: &RedisStore, id: &str) {
    let pushed = [to(&event("acme", "evt_like_it"), &["elsewhere"])];
    enqueue(store, &pushed).await;
    written(store).await;
    let copied: u8 = server
        .ask(&["COPY", &key("evt_like_it"), &key(id)])
        .unwrap();
    assert_eq!(copied, 1);
    let () = server.ask(&["SET", TOKEN, "me.0"]).unwrap();
}

/// Leases what is due and records it as accepted.
async fn written(store: &RedisStore) -> Vec<Leased> {
    let leased = lease(store).await;
    let outcomes: Vec<_> = leased.iter().cloned().map(succeeded).collect();
    store.record(&outcomes).await.unwrap();
    leased
}

/// Removes all finished deliveries.
async fn retain(store: &RedisStore) {
    let none = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    while store.retain(&none).await.unwrap() > 0 {}
}

#[tokio::test]
async fn payloads_do_not_go_through_the_function() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let () = server.ask(&["CONFIG", "RESETSTAT"]).unwrap();
    let batch = [to(&large_event("acme", "evt_1", 1), &["main"])];
    assert_eq!(enqueue(&store, &batch).await, [Some(1)]);
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    // One of the host, one of the function for the record.
    assert!(stats.contains("cmdstat_exec:calls=1,"), "{stats}");
    assert!(stats.contains("cmdstat_msetnx:calls=2,"), "{stats}");
    assert!(!exists(&server, TOKEN));
}

#[tokio::test]
async fn large_events_are_new_though_the_functions_were_lost() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    let batch = ["evt_1", "evt_2"].map(|id| to(&large_event("acme", id, 1), &["main"]));
    let () = server.ask(&["FUNCTION", "FLUSH"]).unwrap();
    assert_eq!(enqueue(&store, &batch).await, [Some(1), Some(1)]);
    assert_eq!(enqueue(&store, &batch).await, [None, None]);
    let leased = lease(&store).await;
    assert_eq!(leased.len(), 2);
    for leased in leased {
        let pushed = large_event("acme", leased.event.id.as_str(), 1);
        assert_eq!(leased.event.payload.bytes(), pushed.payload.bytes());
    }
}

#[tokio::test]
async fn after_that_events_are_written_beside_their_calls_again() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let () = server.ask(&["FUNCTION", "FLUSH"]).unwrap();
    let batch = [to(&large_event("acme", "evt_1", 1), &["main"])];
    assert_eq!(enqueue(&store, &batch).await, [Some(1)]);
    assert!(!exists(&server, TOKEN));
}

#[tokio::test]
async fn an_event_without_a_record_is_new_after_a_call_that_did_not_end() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    begin_without_end(&server, &store, "evt_1").await;
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    assert_eq!(enqueue(&store, &batch).await, [Some(1)]);
    assert_eq!(enqueue(&store, &batch).await, [None]);
    let leased = lease(&store).await.pop().unwrap();
    let pushed = event("acme", "evt_1");
    assert_eq!(leased.event.payload.bytes(), pushed.payload.bytes());
}

#[tokio::test]
async fn the_token_of_a_call_that_did_not_end_stops_nothing_and_does_not_stay_for_ever() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    begin_without_end(&server, &store, "evt_1").await;
    let mut batch = vec![
        to(&large_event("acme", "evt_1", 1), &["main", "other"]),
        to(&large_event("acme", "evt_2", 1), &["main"]),
    ];
    assert_eq!(enqueue(&store, &batch).await, [Some(2), Some(1)]);
    assert_eq!(lease(&store).await.len(), 3);
    // It is another's, who may not have pushed its event again yet.
    let left: i64 = server.ask(&["PTTL", TOKEN]).unwrap();
    assert!(left > 0, "{left}");
    batch.push(to(&large_event("acme", "evt_3", 1), &["main"]));
    assert_eq!(enqueue(&store, &batch).await, [None, None, Some(1)]);
}

#[tokio::test]
async fn in_doubt_an_event_keeps_its_payload_for_all_of_its_deliveries() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let first = [to(&event("acme", "evt_1"), &["main"])];
    assert_eq!(enqueue(&store, &first).await, [Some(1)]);
    begin_without_end(&server, &store, "evt_2").await;
    let other = to(&large_event("acme", "evt_1", 1), &["other"]);
    assert_eq!(
        enqueue(&store, &[other.clone(), other]).await,
        [Some(1), None]
    );
    let third = EventDeliveries {
        extends: true,
        ..to(&event("acme", "evt_1"), &["third"])
    };
    assert_eq!(enqueue(&store, &[third]).await, [Some(1)]);
    let kept = store.event(&first[0].event.tenant_id, &first[0].event.id);
    let kept = kept.await.unwrap().unwrap();
    assert_eq!(kept.payload.bytes(), first[0].event.payload.bytes());

    // The first is removed while the others wait.
    retain(&store).await;
    assert!(exists(&server, &key("evt_1")));
    let leased = written(&store).await;
    assert_eq!(leased.len(), 2);
}

#[tokio::test]
async fn of_a_call_that_is_repeated_nothing_is_left_when_its_events_are_removed() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let () = server.ask(&["FUNCTION", "FLUSH"]).unwrap();
    let batch = [to(&large_event("acme", "evt_1", 1), &["main", "other"])];
    assert_eq!(enqueue(&store, &batch).await, [Some(2)]);
    assert_eq!(written(&store).await.len(), 2);
    retain(&store).await;
    assert!(!exists(&server, &key("evt_1")));
}
