//! Redis, damaged by hand.

mod places;
mod records;
mod sequences;

use std::sync::Arc;

use wasmhook_store::Store as _;
use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_testing::RedisServer;

use crate::queue::Queue;
use crate::steps::LONG;
use crate::verdict::{assert_sound, counts_what_fills_it};
use crate::work::{random_work, work_beside_repairs};

const SHARD: &str = "{wasmhook:0}:";

async fn make() -> (RedisServer, RedisStore) {
    let server = RedisServer::start().unwrap();
    let store = connect(&server).await;
    (server, store)
}

async fn connect(server: &RedisServer) -> RedisStore {
    let mut config = RedisConfig::new(server.url());
    config.shards = 1;
    RedisStore::connect(config).await.unwrap()
}

impl Queue<RedisStore, RedisServer> {
    /// Asks the server by itself. The second word is a key of the shard.
    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let key = format!("{SHARD}{}", words[1]);
        let mut words = words.to_vec();
        words[1] = &key;
        self.beneath.ask(&words).unwrap()
    }

    /// As [`Self::ask`], of something that changes.
    fn damage(&self, words: &[&str]) {
        let answer: redis::Value = self.ask(words);
        assert_ne!(
            answer,
            redis::Value::Int(0),
            "damage that does none: {words:?}"
        );
    }
}

/// The delivery of an event to `main`.
fn id_of(tenant: &str, event_id: &str) -> String {
    to(&event(tenant, event_id), &["main"]).deliveries[0]
        .id
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sound_after_random_work() {
    for seed in 0..4 {
        let (_server, store) = make().await;
        random_work(&store, seed).await;
    }
}

#[tokio::test]
async fn an_empty_queue_and_a_full_one_are_sound() {
    let (_server, store) = make().await;
    counts_what_fills_it(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_do_not_disturb_work() {
    let (_server, store) = make().await;
    work_beside_repairs(Arc::new(store)).await;
}

#[tokio::test]
async fn one_host_checks_for_all() {
    let (server, first) = make().await;
    let second = connect(&server).await;
    assert!(first.claim_check(LONG).await.unwrap());
    assert!(!second.claim_check(LONG).await.unwrap());
    assert_sound(&second).await;
}
