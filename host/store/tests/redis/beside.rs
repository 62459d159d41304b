//! Events that are written beside the call that enqueues them, and calls that do not come to their end.

use wasmhook_store::conformance::{event, large_event, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{EventDeliveries, Store as _};
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

/// Leaves behind what a call does whose function is missing.
fn begin_without_end(server: &RedisServer, id: &str) {
    let key = format!("{{wasmhook:0}}:e:acme\0{id}");
    let written: u8 = server
        .ask(&["MSETNX", TOKEN, "me.0", &key, "half"])
        .unwrap();
    assert_eq!(written, 1);
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
    begin_without_end(&server, "evt_1");
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
    begin_without_end(&server, "evt_1");
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
