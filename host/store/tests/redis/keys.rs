//! Which keys there are: each in its shard's slot, and none that nothing needs any more.

use std::time::Duration;

use wasmhook_core::{DeliveryState, TenantId};
use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::{Filter, Retention, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{lease, store};

#[tokio::test]
async fn every_queue_key_lies_in_its_shards_slot() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    for tenant in ["acme", "globex", "initech"] {
        let events: Vec<_> = (0..5)
            .map(|n| to(&event(tenant, &format!("evt_{n}")), &["a", "b"]))
            .collect();
        store.enqueue(&events).await.unwrap();
    }
    let leased = lease(&store).await;
    store.release(&leased[..2]).await.unwrap();
    let tenant = TenantId::new("acme").unwrap();
    let filter = Filter {
        tenant,
        state: Some(DeliveryState::Pending),
        cursor: None,
        limit: 10,
    };
    store.list(&filter).await.unwrap();
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).unwrap();
    assert!(keys.len() > 30);
    for key in keys {
        let sharded = (0..4).any(|shard| key.starts_with(&format!("{{wasmhook:{shard}}}:")));
        assert!(sharded || key == "wasmhook:meta", "{key:?}");
    }
}

#[tokio::test]
async fn nothing_is_left_when_everything_is_removed() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    for tenant in ["acme", "globex"] {
        let events: Vec<_> = (0..5)
            .map(|n| to(&event(tenant, &format!("evt_{n}")), &["a", "b", "c"]))
            .collect();
        store.enqueue(&events).await.unwrap();
    }
    loop {
        let leased = lease(&store).await;
        if leased.is_empty() {
            break;
        }
        let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
        store.record(&outcomes).await.unwrap();
    }
    let retention = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    while store.retain(&retention).await.unwrap() > 0 {}
    let mut keys: Vec<String> = server.ask(&["KEYS", "*"]).unwrap();
    // Counters and the deployment's settings stay.
    let stays = [":u", ":U", ":k", "wasmhook:meta"];
    keys.retain(|key| !stays.iter().any(|end| key.ends_with(end)));
    // These end with the leases.
    keys.retain(|key| !key.contains("}:H:"));
    assert!(keys.is_empty(), "{keys:?}");
}
