//! What the tests of this folder share.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
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

/// A store that has heard from the server: the first time is news, which would end a worker's wait.
pub(crate) async fn hearing(server: &RedisServer) -> Arc<RedisStore> {
    let store = store(server).await;
    let new_work = store.new_work();
    new_work.wait(&request(0), 1, Duration::from_secs(60)).await;
    Arc::new(store)
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

/// A task that waits for new work, once it does.
pub(crate) async fn waiting(
    store: &Arc<RedisStore>,
    max: usize,
) -> tokio::task::JoinHandle<Vec<Leased>> {
    let store = Arc::clone(store);
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(async move {
        let (new_work, request) = (store.new_work(), request(max));
        loop {
            // News of the start, or of what ended a wait before.
            assert_eq!(new_work.lease(&request, 128).await.len(), 0);
            let brought = new_work.wait(&request, 128, Duration::from_secs(60));
            tokio::pin!(brought);
            let first = poll_fn(|context| Poll::Ready(brought.as_mut().poll(context))).await;
            if first.is_pending() {
                ready.send(()).unwrap();
                return brought.await;
            }
        }
    });
    is_ready.await.unwrap();
    waiting
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
