//! What the tests of this folder share.

use std::time::{Duration, Instant};

use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_store::{LeaseRequest, Leased, Store as _, StoreError};
use wasmhook_testing::RedisServer;

pub(crate) fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig::new(server.url())
}

pub(crate) async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(config(server)).await.unwrap()
}

/// A store whose deliveries all are in `{wasmhook:0}`.
pub(crate) async fn on_one_shard(server: &RedisServer) -> RedisStore {
    let mut config = config(server);
    config.shards = 1;
    RedisStore::connect(config).await.unwrap()
}

pub(crate) fn request(max: usize) -> LeaseRequest {
    LeaseRequest {
        max,
        duration: Duration::from_mins(1),
        max_per_endpoint: 100,
    }
}

pub(crate) async fn lease(store: &RedisStore) -> Vec<Leased> {
    store.lease(&request(10)).await.unwrap().leased
}

pub(crate) async fn push(store: &RedisStore, tenant: &str, ids: std::ops::Range<usize>) {
    let events: Vec<_> = ids
        .map(|n| to(&event(tenant, &format!("e{n}")), &["main"]))
        .collect();
    store.enqueue(&events).await.unwrap();
}

/// Tries until the store is back, as a host does.
pub(crate) async fn until<T, F>(mut work: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let start = Instant::now();
    loop {
        match work().await {
            Ok(value) => return value,
            Err(StoreError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it stays away");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
