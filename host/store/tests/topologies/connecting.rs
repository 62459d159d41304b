//! Connecting: users, sockets, kinds of servers, and what is said when it cannot be.

use std::time::Duration;

use secrecy::SecretString;
use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream, Sentinels, Tls, Topology};
use wasmhook_store::{EventStream, Store, StoreError};
use wasmhook_testing::{Certificates, Durability, RedisCluster, RedisSentinels, RedisServer};

use crate::support::{by_sentinels, on_cluster, request, settings};

pub(crate) async fn refusal(config: RedisConfig) -> StoreError {
    match RedisStore::connect(config).await {
        Ok(_) => panic!("it connected"),
        Err(error) => error,
    }
}

pub(crate) fn events() -> [wasmhook_core::EventDraft; 1] {
    [wasmhook_core::EventDraft {
        id: "evt_1".to_owned(),
        tenant: "acme".to_owned(),
        event_type: "a.b".to_owned(),
        payload: "{}".into(),
        ..wasmhook_core::EventDraft::default()
    }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_may_not_do_is_said_in_one_sentence() {
    let server = RedisServer::start().unwrap();
    let user = |words: &[&str]| {
        let all: Vec<_> = ["ACL", "SETUSER", "queue", "reset", "on", ">hunter2"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let () = server.ask(&all).unwrap();
    };
    let url = format!("redis://queue:hunter2@127.0.0.1:{}", server.port());
    let config = RedisConfig::new(url);
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["~*", "&*", "+@all", "-zadd", "-fcall", "-publish"],
            &["+zadd", "+fcall", "+publish"],
        ),
        (&["~*", "&*", "+@all", "-function"], &["+function|load"]),
        (&["~other:*", "&*", "+@all"], &["~wasmhook:*"]),
        (&["~*", "resetchannels", "+@all"], &["&wasmhook:wake"]),
        (&["~*", "&*", "+@all", "-subscribe"], &["+subscribe"]),
        (&["~*", "&*", "+@all", "-multi"], &["'multi'"]),
    ];
    for (words, expected) in cases {
        user(words);
        let text = refusal(config.clone()).await.to_string();
        for word in expected {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
    user(&["~*", "&*", "+@all", "-xreadgroup"]);
    RedisStore::connect(config.clone()).await.unwrap();
    let error = RedisStream::connect(config.clone()).await.err().unwrap();
    assert!(matches!(error, StoreError::Configuration(_)), "{error}");
    assert!(error.to_string().contains("+xreadgroup"), "{error}");
    // Nothing that was tried was done.
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).unwrap();
    assert_eq!(keys, ["wasmhook:meta"]);
    // What is forbidden later is said as clearly.
    user(&["~*", "&*", "+@all"]);
    let store = RedisStore::connect(config).await.unwrap();
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    user(&["~*", "&*", "+@all", "-rpush"]);
    let error = store.enqueue(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("permission"), "{error}");
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_is_named() {
    let certificates = Certificates::make().unwrap();
    let mut config = RedisConfig::new("rediss://localhost:1");
    config.tls.ca = Some("missing.pem".into());
    let text = refusal(config.clone()).await.to_string();
    assert!(
        text.contains("tls.ca") && text.contains("missing.pem"),
        "{text}"
    );
    let (certificate, key) = certificates.client();
    config.tls.ca = Some(key.clone());
    let text = refusal(config.clone()).await.to_string();
    assert!(
        text.contains("tls.ca") && text.contains("no certificates"),
        "{text}"
    );
    config.tls = Tls {
        ca: Some(certificates.ca()),
        certificate: Some(certificate.clone()),
        key: Some(certificate),
    };
    let text = refusal(config).await.to_string();
    assert!(
        text.contains("tls.key") && text.contains("no private key"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_works() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let path = socket.to_string_lossy();
    let _server = RedisServer::start_with(Durability::None, &["--unixsocket", &path]).unwrap();
    let store = RedisStore::connect(RedisConfig::new(format!("unix://{path}"))).await;
    let store = store.unwrap();
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    store.enqueue(&batch).await.unwrap();
    assert_eq!(store.lease(&request(1)).await.unwrap().leased.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_kind_is_told_apart() {
    let single = RedisServer::start().unwrap();
    let sentinels = RedisSentinels::start(1, Durability::None, &[]).unwrap();
    let cluster = RedisCluster::start(3, false, Durability::None).unwrap();
    let urls = |url: String| vec![SecretString::from(url)];
    let by_sentinel = |url: String, master: &str| {
        Topology::Sentinel(Sentinels {
            urls: urls(url),
            master: master.to_owned(),
            username: None,
            password: None,
        })
    };
    let cases = [
        (
            Topology::Single(cluster.urls().remove(0).into()),
            "is a node of a cluster",
        ),
        (
            Topology::Single(sentinels.urls().remove(0).into()),
            "is a Sentinel",
        ),
        (Topology::Cluster(urls(single.url())), "not in cluster mode"),
        (
            Topology::Cluster(urls(sentinels.urls().remove(0))),
            "is a Sentinel",
        ),
        (by_sentinel(single.url(), "queue"), "is not a Sentinel"),
        (
            by_sentinel(sentinels.urls().remove(0), "other"),
            "no master by the name other",
        ),
    ];
    for (topology, expected) in cases {
        let error = refusal(settings(topology)).await;
        assert!(matches!(error, StoreError::Configuration(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let replica = RedisServer::start_with(
        Durability::None,
        &["--replicaof", &format!("127.0.0.1 {}", single.port())],
    )
    .unwrap();
    let mut config = RedisConfig::new(replica.url());
    config.connect_timeout = Duration::from_millis(300);
    let error = refusal(config).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("is a replica"), "{error}");
    // Both ways of several servers are what they seem.
    RedisStore::connect(by_sentinels(&sentinels)).await.unwrap();
    RedisStore::connect(on_cluster(&cluster)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_do_not_confirm_is_not_acknowledged_and_may_be_repeated() {
    let server = RedisServer::start().unwrap();
    let origin = format!("127.0.0.1 {}", server.port());
    let words = ["--replicaof", &origin, "--repl-diskless-sync-delay", "0"];
    let replica = RedisServer::start_with(Durability::None, &words).unwrap();
    let mut config = RedisConfig::new(server.url());
    config.wait_replicas = 1;
    config.wait_timeout = Duration::from_millis(200);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let stream = RedisStream::connect(config).await.unwrap();
    let first = [to(&event("acme", "evt_0"), &["main"])];
    crate::support::until(|| store.enqueue(&first)).await;

    replica.pause().unwrap();
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    // From the second time on there is nothing left to write, and still no replica that has it. As
    // often as there are connections that could take a silence for consent.
    for _ in 0..6 {
        let error = store.enqueue(&batch).await.unwrap_err();
        assert!(matches!(error, StoreError::NotReplicated { .. }), "{error}");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    }
    let error = stream.push(&events()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotReplicated { .. }), "{error}");
    // What acknowledges nothing does not wait.
    let leased = store.lease(&request(10)).await.unwrap().leased;
    assert_eq!(leased.len(), 2);
    let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
    for _ in 0..2 {
        let error = store.record(&outcomes).await.unwrap_err();
        assert!(matches!(error, StoreError::NotReplicated { .. }), "{error}");
    }

    replica.resume().unwrap();
    let answers = crate::support::until(|| store.enqueue(&batch)).await;
    assert!(answers[0].duplicate);
    crate::support::until(|| store.record(&outcomes)).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.succeeded, backlog.waiting), (2, 0));
}
