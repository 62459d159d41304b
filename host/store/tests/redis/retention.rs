//! What retention leaves behind, and how much it does at once.

use std::time::Duration;

use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::{Retention, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{on_one_shard, push, request};

#[tokio::test]
async fn a_tenants_stream_is_cleared_around_deliveries_that_stay_open() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let retention = Retention {
        age: Duration::from_hours(1),
        count: 100,
    };
    // Nobody delivers these, of which the first was made before all others.
    let open = |n: usize| to(&event("acme", &format!("open{n}")), &["away"]);
    store.enqueue(&[open(0)]).await.unwrap();
    let held = store.lease(&request(1)).await.unwrap().leased;
    assert_eq!(held.len(), 1);
    for round in 0..40 {
        push(&store, "acme", 50 * round..50 * (round + 1)).await;
        let leased = store.lease(&request(100)).await.unwrap().leased;
        let done: Vec<_> = leased.into_iter().map(succeeded).collect();
        assert_eq!(done.len(), 50);
        store.record(&done).await.unwrap();
        while store.retain(&retention).await.unwrap() > 0 {}
    }
    // Two entries are of what is kept, and one is of what is open.
    let entries: usize = server.ask(&["XLEN", "{wasmhook:0}:i:acme"]).unwrap();
    assert!((3..=8).contains(&entries), "{entries} entries are left");
    let kept: usize = server.ask(&["LLEN", "{wasmhook:0}:f:acme"]).unwrap();
    assert_eq!(kept, 100);
    let keys: Vec<String> = server.ask(&["KEYS", "{wasmhook:0}:d:*"]).unwrap();
    assert_eq!(keys.len(), 101);
}

#[tokio::test]
async fn retention_never_has_the_server_to_itself_for_long() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    for part in 0..6 {
        push(&store, "acme", 500 * part..500 * (part + 1)).await;
    }
    let mut many = request(3000);
    many.max_per_endpoint = 3000;
    let leased = store.lease(&many).await.unwrap().leased;
    let done: Vec<_> = leased.into_iter().map(succeeded).collect();
    assert_eq!(done.len(), 3000);
    store.record(&done).await.unwrap();
    let retention = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    let (mut calls, mut removed) = (0, 0);
    loop {
        let more = store.retain(&retention).await.unwrap();
        if more == 0 {
            break;
        }
        assert!(more <= 200, "{more} were removed by one call");
        calls += 1;
        removed += more;
    }
    assert_eq!((removed, calls), (3000, 15));
}
