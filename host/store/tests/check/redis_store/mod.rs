//! Redis, damaged by hand.

mod places;
mod records;
mod sequences;

use std::sync::Arc;

use wasmhook_store::Store as _;
use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_testing::RedisServer;

use crate::steps::{LONG, LOOK, fill};
use crate::verdict::{assert_sound, drains};
use crate::work::{random_work, work_beside_repairs};

pub(super) const SHARD: &str = "{wasmhook:0}:";

pub(super) async fn make() -> (RedisServer, RedisStore, redis::aio::MultiplexedConnection) {
    let server = RedisServer::start().unwrap();
    let mut config = RedisConfig::new(server.url());
    config.shards = 1;
    let store = RedisStore::connect(config).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    (server, store, connection)
}

/// Does one thing by hand: the key is the shard's.
pub(super) async fn by_hand(
    connection: &mut redis::aio::MultiplexedConnection,
    name: &str,
    key: &str,
    more: &[&str],
) {
    let mut command = redis::cmd(name);
    command.arg(format!("{SHARD}{key}")).arg(more);
    let answer: redis::Value = command.query_async(connection).await.unwrap();
    // Damage that does none proves nothing.
    assert_ne!(answer, redis::Value::Int(0), "{name} {key} changed nothing");
}

pub(super) fn id_of(tenant: &str, event_id: &str) -> String {
    to(&event(tenant, event_id), &["main"]).deliveries[0]
        .id
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sound_after_random_work() {
    for seed in 0..4 {
        let (_server, store, _) = make().await;
        random_work(&store, seed).await;
    }
}

#[tokio::test]
async fn an_empty_queue_and_a_full_one_are_sound() {
    let (_server, store, _) = make().await;
    assert_sound(&store).await;
    let held = fill(&store).await;
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let looked = report.looked;
    assert_eq!((looked.deliveries, looked.open), (36, 24));
    assert_eq!((looked.due, looked.waiting, looked.leased), (12, 6, 6));
    drains(&store, held, 18).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_do_not_disturb_work() {
    let (_server, store, _) = make().await;
    work_beside_repairs(Arc::new(store)).await;
}

#[tokio::test]
async fn one_host_checks_for_all() {
    let (server, first, _) = make().await;
    let mut config = RedisConfig::new(server.url());
    config.shards = 1;
    let second = RedisStore::connect(config).await.unwrap();
    assert!(first.claim_check(LONG).await.unwrap());
    assert!(!second.claim_check(LONG).await.unwrap());
    assert_sound(&second).await;
}
