//! Behind Sentinels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_core::EventDraft;
use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::{RedisStore, RedisStream, Topology};
use wasmhook_store::{EventStream, Store, StoreError};
use wasmhook_testing::{Durability, RedisSentinels};

use crate::load::Load;
use crate::support::{PATIENCE, Shared, by_sentinels, passes, request, until};

mod conformance {
    use super::*;

    static SERVERS: Shared<RedisSentinels> = Shared::new();

    async fn make() -> (Arc<RedisSentinels>, Arc<dyn Store>) {
        let servers = SERVERS.get(|| RedisSentinels::start(1, Durability::None, &[]).unwrap());
        let mut config = by_sentinels(&servers);
        config.wait_replicas = 1;
        config.wait_timeout = Duration::from_secs(10);
        let store = RedisStore::connect(config).await.unwrap();
        (servers, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}

fn servers() -> RedisSentinels {
    RedisSentinels::start(2, Durability::None, &[]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_during_work_loses_nothing_confirmed() {
    let mut servers = servers();
    let mut config = by_sentinels(&servers);
    // Two of two: whichever is promoted has everything.
    config.wait_replicas = 2;
    config.response_timeout = Duration::from_secs(5);
    let load = Load::start(RedisStore::connect(config).await.unwrap());
    load.goes_on(100).await;
    servers.server(0).kill().unwrap();
    servers.promoted(0).unwrap();
    // As a replica of the new master.
    servers.server(0).restart().unwrap();
    load.goes_on(100).await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_and_wake_ups_follow_the_master() {
    let mut servers = servers();
    let config = by_sentinels(&servers);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let other = RedisStore::connect(config.clone()).await.unwrap();
    let stream = RedisStream::connect(config).await.unwrap();
    assert!(store.lease(&request(1)).await.unwrap().leased.is_empty());
    // One Sentinel is gone as well.
    servers.sentinel(0).kill().unwrap();
    servers.server(0).kill().unwrap();
    let start = Instant::now();
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    let draft = [EventDraft {
        id: "evt_2".to_owned(),
        tenant: "acme".to_owned(),
        event_type: "a.b".to_owned(),
        payload: "{}".into(),
        ..EventDraft::default()
    }];
    let host = async {
        loop {
            store.wait_for_work(Duration::from_secs(50)).await.unwrap();
            let one = request(1);
            if until(|| store.lease(&one)).await.leased.len() == 1 {
                break;
            }
        }
    };
    let reader = async {
        loop {
            match stream.read(10, Duration::from_secs(1)).await {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => break entries,
                Err(error) => {
                    assert!(passes(&error), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            assert!(start.elapsed() < PATIENCE, "nothing comes");
        }
    };
    let producer = async {
        until(|| other.enqueue(&batch)).await;
        until(|| stream.push(&draft)).await;
    };
    let ((), entries, ()) = tokio::join!(host, reader, producer);
    assert_eq!(entries[0].draft.id, "evt_2");
    assert!(start.elapsed() < PATIENCE, "slept through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_servers_have_logins_of_their_own() {
    let mut servers = servers();
    for n in 0..3 {
        let user = ["ACL", "SETUSER", "sentry", "on", ">s3ntinel", "+@all"];
        let () = servers.sentinel(n).ask(&user).unwrap();
        let user = [
            "ACL", "SETUSER", "queue", "on", ">s3rver", "~*", "&*", "+@all",
        ];
        let () = servers.server(n).ask(&user).unwrap();
    }
    let config = |sentinel: &str, server: &str| {
        let mut config = by_sentinels(&servers);
        let Topology::Sentinel(sentinels) = &mut config.topology else {
            unreachable!("by_sentinels makes that");
        };
        sentinels.username = Some("sentry".to_owned());
        sentinels.password = Some(sentinel.into());
        config.username = Some("queue".to_owned());
        config.password = Some(server.into());
        config
    };
    let store = RedisStore::connect(config("s3ntinel", "s3rver")).await;
    store.unwrap().ping().await.unwrap();
    let start = Instant::now();
    for (sentinel, server) in [("wrong", "s3rver"), ("s3ntinel", "wrong")] {
        let error = RedisStore::connect(config(sentinel, server)).await;
        let error = error.err().expect("it connected");
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("password was not accepted"), "{text}");
        assert_eq!(
            text.contains("the Sentinel at"),
            sentinel == "wrong",
            "{text}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(15), "it tried on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_failover_is_followed() {
    let mut servers = servers();
    let load = Load::start(RedisStore::connect(by_sentinels(&servers)).await.unwrap());
    load.goes_on(50).await;
    let sentinel = servers.sentinel(0);
    let () = sentinel
        .ask(&["SENTINEL", "FAILOVER", RedisSentinels::MASTER])
        .unwrap();
    let new = servers.promoted(0).unwrap();
    assert_ne!(new, 0);
    load.goes_on(100).await;
    drop(load);
}
