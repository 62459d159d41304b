//! What a store says when it connects: who does not answer, who refuses, and what does not fit.

use std::time::{Duration, Instant};

use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_store::{Store as _, StoreError};
use wasmhook_testing::{Durability, RedisServer};

use crate::support::{config, store};

#[tokio::test]
async fn a_missing_server_is_reported_in_time_and_by_name() {
    let mut server = RedisServer::start().unwrap();
    server.kill().unwrap();
    let mut config = RedisConfig::new(format!("redis://:hunter2@127.0.0.1:{}", server.port()));
    config.connect_timeout = Duration::from_millis(300);
    let start = Instant::now();
    let Err(error) = RedisStore::connect(config).await else {
        panic!("connected to nothing");
    };
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{}", server.port())),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once() {
    let server = RedisServer::start_with(Durability::None, &["--requirepass", "right"]).unwrap();
    let url = |password| format!("redis://:{password}@127.0.0.1:{}", server.port());
    let start = Instant::now();
    let Err(error) = RedisStore::connect(RedisConfig::new(url("hunter2"))).await else {
        panic!("a wrong password was accepted");
    };
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let store = RedisStore::connect(RedisConfig::new(url("right")))
        .await
        .unwrap();
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_queue_of_layout_1_is_taken_over_and_older_hosts_check_it_no_more() {
    let server = RedisServer::start().unwrap();
    let layout_1 = ["HSET", "wasmhook:meta", "shards", "4", "layout", "1"];
    let () = server.ask(&layout_1).unwrap();
    let store = store(&server).await;
    let kept: String = server.ask(&["HGET", "wasmhook:meta", "layout"]).unwrap();
    assert_eq!(kept, "2");
    let ttl: i64 = server.ask(&["TTL", "{wasmhook:0}:v"]).unwrap();
    assert_eq!(ttl, -1, "older hosts get their turn to check again");
    assert!(store.claim_check(Duration::from_mins(1)).await.unwrap());
    let layout_to_come = ["HSET", "wasmhook:meta", "layout", "3"];
    let () = server.ask(&layout_to_come).unwrap();
    let Err(StoreError::Configuration(text)) = RedisStore::connect(config(&server)).await else {
        panic!("another layout was accepted");
    };
    assert!(
        text.contains("layout 3") && text.contains("layout 2"),
        "{text}"
    );
}

#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let server = RedisServer::start().unwrap();
    drop(store(&server).await);
    let mut config = config(&server);
    config.shards = 16;
    let Err(StoreError::Configuration(text)) = RedisStore::connect(config.clone()).await else {
        panic!("another number of shards was accepted");
    };
    assert!(text.contains("4 shards") && text.contains("16"), "{text}");
    config.prefix = "other".to_owned();
    RedisStore::connect(config).await.unwrap();
}

#[tokio::test]
async fn settings_that_lose_data_are_warned_of() {
    let server =
        RedisServer::start_with(Durability::None, &["--maxmemory-policy", "allkeys-lru"]).unwrap();
    let warnings = store(&server).await.warnings().await.unwrap();
    assert!(
        warnings.iter().any(|w| w.contains("appendonly")),
        "{warnings:?}"
    );
    assert!(
        warnings.iter().any(|w| w.contains("allkeys-lru")),
        "{warnings:?}"
    );
    let server = RedisServer::start_with(Durability::EverySecond, &[]).unwrap();
    let warnings = store(&server).await.warnings().await.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}
