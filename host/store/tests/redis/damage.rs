//! A record that cannot be read, damaged by hand or of a version to come, holds up no other.

use std::time::Duration;

use wasmhook_core::delivery::default_id;
use wasmhook_core::{
    DeliveryId, EndpointId, EventId, OnDeadLetter, OrderingKey, Sequence, TenantId,
};
use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::{Filter, LeaseRequest, Recorded, Retention, Store as _, StoreError};
use wasmhook_testing::RedisServer;

use crate::support::{on_one_shard, push, request};

const EVERYTHING: Retention = Retention {
    age: Duration::ZERO,
    count: 0,
};

fn id_of(event: &str) -> DeliveryId {
    default_id(
        &TenantId::new("acme").unwrap(),
        &EventId::new(event).unwrap(),
        &EndpointId::new("main").unwrap(),
    )
}

fn key_of(event: &str) -> String {
    format!("{{wasmhook:0}}:d:acme\0{}", id_of(event))
}

/// Writes something over a record, which is kept.
fn damage(server: &RedisServer, event: &str, value: &str) {
    let key = key_of(event);
    let kept: i64 = server.ask(&["COPY", &key, "kept"]).unwrap();
    assert_eq!(kept, 1);
    let () = server.ask(&["SET", &key, value]).unwrap();
}

fn mend(server: &RedisServer, event: &str) {
    let () = server.ask(&["RENAME", "kept", &key_of(event)]).unwrap();
}

const DAMAGES: [&str; 5] = [
    "",
    "?",
    "of a version to come",
    "0000000000000001pevt\0",
    "0000000000000001pevt\0\0\x30\0\0",
];

#[tokio::test]
async fn a_lease_of_what_cannot_be_read_ends_for_all_others_and_comes_again_when_it_can() {
    for value in DAMAGES {
        let server = RedisServer::start().unwrap();
        let store = on_one_shard(&server).await;
        push(&store, "acme", 0..4).await;
        let short = LeaseRequest {
            duration: Duration::from_millis(20),
            ..request(10)
        };
        assert_eq!(store.lease(&short).await.unwrap().leased.len(), 4);
        damage(&server, "e1", value);
        tokio::time::sleep(Duration::from_millis(40)).await;
        let leased = store.lease(&request(10)).await.unwrap().leased;
        let mut ids: Vec<_> = leased
            .iter()
            .map(|l| l.delivery.event_id.as_str())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, ["e0", "e2", "e3"], "{value:?}");
        push(&store, "acme", 4..5).await;
        assert_eq!(store.lease(&request(10)).await.unwrap().leased.len(), 1);
        mend(&server, "e1");
        // As if its time had come.
        let member = format!("acme\0{}", id_of("e1"));
        let changed: i64 = server
            .ask(&["ZADD", "{wasmhook:0}:l", "XX", "CH", "1", &member])
            .unwrap();
        assert_eq!(changed, 1, "{value:?}");
        let leased = store.lease(&request(10)).await.unwrap().leased;
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].delivery.event_id.as_str(), "e1");
        let done = store.record(&[succeeded(leased[0].clone())]).await.unwrap();
        assert_eq!(done, [Recorded::Written], "{value:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_short_of_what_cannot_be_read_says_to_ask_again() {
    let server = RedisServer::start().unwrap();
    push(&on_one_shard(&server).await, "acme", 0..4).await;
    damage(&server, "e1", "?");
    // Another host, which has nothing of it at hand.
    let store = on_one_shard(&server).await;
    let batch = store.lease(&request(2)).await.unwrap();
    assert_eq!(batch.leased.len(), 1);
    assert_eq!(batch.next_due, Some(Duration::ZERO));
    let batch = store.lease(&request(9)).await.unwrap();
    assert_eq!(batch.leased.len(), 2);
    assert_ne!(batch.next_due, Some(Duration::ZERO));
}

fn everything_of(tenant: &TenantId) -> Filter {
    Filter {
        tenant: tenant.clone(),
        state: None,
        cursor: None,
        limit: 100,
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_told_as_damaged_and_its_neighbours_are_listed() {
    let acme = TenantId::new("acme").unwrap();
    for value in DAMAGES {
        let server = RedisServer::start().unwrap();
        let store = on_one_shard(&server).await;
        push(&store, "acme", 0..3).await;
        damage(&server, "e1", value);
        let told = store.get(&acme, &id_of("e1")).await;
        assert!(matches!(told, Err(StoreError::Corrupt(_))), "{value:?}");
        let told = store.replay(&acme, &id_of("e1")).await;
        assert!(matches!(told, Err(StoreError::Corrupt(_))), "{value:?}");
        let all = store.list(&everything_of(&acme)).await.unwrap();
        assert_eq!(all.records.len(), 2, "{value:?}");
    }
}

#[tokio::test]
async fn retention_goes_past_what_cannot_be_read() {
    for value in DAMAGES {
        let server = RedisServer::start().unwrap();
        let store = on_one_shard(&server).await;
        push(&store, "acme", 0..4).await;
        let leased = store.lease(&request(10)).await.unwrap().leased;
        let done: Vec<_> = leased.into_iter().map(succeeded).collect();
        store.record(&done).await.unwrap();
        damage(&server, "e1", value);
        let mut removed = 0;
        loop {
            match store.retain(&EVERYTHING).await.unwrap() {
                0 => break,
                more => removed += more,
            }
        }
        assert_eq!(removed, 3, "{value:?}");
    }
}

#[tokio::test]
async fn the_next_of_a_sequence_that_cannot_be_read_keeps_its_place_and_all_else_goes_on() {
    for value in DAMAGES {
        let server = RedisServer::start().unwrap();
        let store = on_one_shard(&server).await;
        let in_line: Vec<_> = (0..3)
            .map(|n| {
                let mut item = to(&event("acme", &format!("e{n}")), &["main"]);
                for delivery in &mut item.deliveries {
                    delivery.sequence = Some(Sequence {
                        key: OrderingKey::new("line").ok(),
                        on_dead_letter: OnDeadLetter::Skip,
                        max_attempts: None,
                    });
                }
                item
            })
            .collect();
        store.enqueue(&in_line).await.unwrap();
        push(&store, "acme", 3..4).await;
        damage(&server, "e1", value);
        let leased = store.lease(&request(10)).await.unwrap().leased;
        assert_eq!(leased.len(), 2, "{value:?}");
        let done: Vec<_> = leased.into_iter().map(succeeded).collect();
        let done = store.record(&done).await.unwrap();
        assert_eq!(done, [Recorded::Written; 2], "{value:?}");
        assert!(store.lease(&request(10)).await.unwrap().leased.is_empty());
        push(&store, "acme", 4..5).await;
        assert_eq!(store.lease(&request(10)).await.unwrap().leased.len(), 1);
    }
}
