//! The Redis store and stream against a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmhook_core::{DeliveryState, EventDraft, TenantId};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream};
use wasmhook_store::{EventStream, LeaseRequest, Leased, Store, StoreError};
use wasmhook_testing::{Durability, RedisServer};

mod conformance {
    use super::*;

    async fn make() -> (RedisServer, Arc<dyn Store>) {
        let server = RedisServer::start().unwrap();
        let store = RedisStore::connect(config(&server)).await.unwrap();
        (server, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}

mod conformance_on_one_shard {
    use super::*;

    async fn make() -> (RedisServer, Arc<dyn Store>) {
        let server = RedisServer::start().unwrap();
        let mut config = config(&server);
        config.shards = 1;
        let store = RedisStore::connect(config).await.unwrap();
        (server, Arc::new(store))
    }

    wasmhook_store::turn_tests!(make);
    wasmhook_store::conformance_tests!(make);
}

fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig::new(server.url())
}

async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(config(server)).await.unwrap()
}

fn request(max: usize) -> LeaseRequest {
    LeaseRequest {
        max,
        duration: Duration::from_mins(1),
        max_per_endpoint: 100,
    }
}

async fn lease(store: &RedisStore) -> Vec<Leased> {
    store.lease(&request(10)).await.unwrap().leased
}

/// Tries until the store is back, as a host does.
async fn until<T, F>(mut work: impl FnMut() -> F) -> T
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
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let fields = [("shards", "4"), ("layout", "1")];
    let _: () = redis::cmd("HSET")
        .arg("wasmhook:meta")
        .arg(&fields)
        .query_async(&mut connection)
        .await
        .unwrap();
    let config = RedisConfig::new(server.url());
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let mut layout = redis::cmd("HGET");
    layout.arg("wasmhook:meta").arg("layout");
    let kept: String = layout.query_async(&mut connection).await.unwrap();
    assert_eq!(kept, "2");
    let ttl: i64 = redis::cmd("TTL")
        .arg("{wasmhook:0}:v")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(ttl, -1, "older hosts get their turn to check again");
    assert!(store.claim_check(Duration::from_mins(1)).await.unwrap());
    // A layout to come is refused.
    let _: () = redis::cmd("HSET")
        .arg("wasmhook:meta")
        .arg(&[("layout", "3")])
        .query_async(&mut connection)
        .await
        .unwrap();
    let Err(StoreError::Configuration(text)) = RedisStore::connect(config).await else {
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
async fn the_functions_come_back_after_they_are_lost() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FUNCTION")
        .arg("FLUSH")
        .exec_async(&mut connection)
        .await
        .unwrap();
    store
        .enqueue(&[to(&event("acme", "evt_1"), &["main"])])
        .await
        .unwrap();
    assert_eq!(lease(&store).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again_with_its_data() {
    let mut server = RedisServer::start_with(Durability::Always, &[]).unwrap();
    let store = store(&server).await;
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    store.enqueue(&batch).await.unwrap();
    server.kill().unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = store.lease(&request(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.restart().unwrap();
    let again = until(|| store.enqueue(&batch)).await;
    assert!(again[0].duplicate);
    let ten = request(10);
    assert_eq!(until(|| store.lease(&ten)).await.leased.len(), 1);

    // Wake-ups come back as well.
    assert!(lease(&store).await.is_empty());
    let other = store_of(&server).await;
    let start = Instant::now();
    other
        .enqueue(&[to(&event("acme", "evt_2"), &["main"])])
        .await
        .unwrap();
    loop {
        store.wait_for_work(Duration::from_secs(30)).await.unwrap();
        if lease(&store).await.len() == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

async fn store_of(server: &RedisServer) -> RedisStore {
    store(server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_another_host_wakes_this_one() {
    let server = RedisServer::start().unwrap();
    let (mine, other) = (store(&server).await, store(&server).await);
    for n in 0..5 {
        while mine.lease(&request(10)).await.unwrap().leased.len() == 10 {}
        let start = Instant::now();
        let writer = tokio::spawn({
            let batch = [to(&event("acme", &format!("evt_{n}")), &["main"])];
            let other = RedisStore::connect(config(&server)).await.unwrap();
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                other.enqueue(&batch).await.unwrap();
            }
        });
        loop {
            mine.wait_for_work(Duration::from_secs(30)).await.unwrap();
            if !lease(&mine).await.is_empty() {
                break;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "slept through");
        writer.await.unwrap();
    }
    drop(other);
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

#[tokio::test]
async fn no_two_leases_have_one_fence_however_long_they_last() {
    let server = RedisServer::start().unwrap();
    let mut config = config(&server);
    config.shards = 1;
    let store = RedisStore::connect(config).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // Stamps that are ahead of the clock follow one another, so ends of leases can be made to meet.
    let ahead = jiff::Timestamp::now().as_microsecond() + 10_000_000;
    let _: () = redis::cmd("SET")
        .arg("{wasmhook:0}:u")
        .arg(ahead)
        .query_async(&mut connection)
        .await
        .unwrap();
    let item = [to(&event("acme", "evt_1"), &["main"])];
    store.enqueue(&item).await.unwrap();
    let mut fences = std::collections::HashMap::new();
    let mut older: Vec<Leased> = Vec::new();
    for n in 0..200 {
        // Another host with a shorter time limit, and one with ever shorter ones.
        let shorter = [0, n, 4 * n][usize::try_from(n % 3).unwrap()];
        let mut one = request(1);
        one.duration -= Duration::from_micros(shorter);
        let leased = store.lease(&one).await.unwrap().leased;
        let ends: i64 = leased[0].token.0.parse().unwrap();
        if let Some(earlier) = fences.insert(ends, n) {
            panic!("leases {earlier} and {n} both have the fence {ends}");
        }
        // What was given back before gives nothing back that is held now.
        store.release(&older).await.unwrap();
        assert!(store.lease(&one).await.unwrap().leased.is_empty());
        store.release(&leased).await.unwrap();
        older.extend(leased);
    }
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_was_asked_beside_longer_ones() {
    let server = RedisServer::start().unwrap();
    let mut config = config(&server);
    config.shards = 1;
    let store = RedisStore::connect(config).await.unwrap();
    let items: Vec<_> = (0..8)
        .map(|n| to(&event("acme", &format!("evt_{n}")), &["main"]))
        .collect();
    store.enqueue(&items).await.unwrap();
    let mut last = i64::MAX;
    for minutes in (1..=8).rev() {
        let mut one = request(1);
        one.duration = Duration::from_mins(minutes);
        let leased = store.lease(&one).await.unwrap().leased;
        let ends: i64 = leased[0].token.0.parse().unwrap();
        let minute = 60_000_000;
        assert!(last == i64::MAX || last - ends > minute / 2, "{minutes}");
        last = ends;
    }
}

#[tokio::test]
async fn what_was_leased_with_a_lost_answer_comes_again_at_once() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    for n in 0..3 {
        let item = [to(&event("acme", &format!("evt_{n}")), &["main"])];
        store.enqueue(&item).await.unwrap();
    }
    // What this host heard of stays its own.
    let kept = store.lease(&request(1)).await.unwrap().leased;
    for _ in 0..2 {
        server.pause().unwrap();
        let patience = Duration::from_millis(100);
        let two = request(2);
        let lost = tokio::time::timeout(patience, store.lease(&two)).await;
        assert!(lost.is_err());
        server.resume().unwrap();
    }
    let leased = store.lease(&request(10)).await.unwrap().leased;
    let ids: Vec<_> = leased.iter().map(|leased| &leased.event.id).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let all = kept.into_iter().chain(leased).map(accepted);
    let recorded = store.record(&all.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(recorded, [wasmhook_store::Recorded::Written; 3]);
    let report = store.check(wasmhook_store::CheckRequest::default()).await;
    assert!(report.unwrap().is_sound());
}

#[tokio::test]
async fn what_was_leased_and_could_not_be_read_comes_again_at_once() {
    let server = RedisServer::start().unwrap();
    let (producer, host) = (store(&server).await, store(&server).await);
    for n in 0..3 {
        let item = [to(&event("acme", &format!("evt_{n}")), &["main"])];
        producer.enqueue(&item).await.unwrap();
    }
    let _: String = server.ask(&["ACL", "SETUSER", "default", "-mget"]).unwrap();
    assert!(host.lease(&request(10)).await.is_err());
    let _: String = server.ask(&["ACL", "SETUSER", "default", "+mget"]).unwrap();
    assert_eq!(lease(&host).await.len(), 3);
}

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
    let filter = wasmhook_store::Filter {
        tenant,
        state: Some(DeliveryState::Pending),
        cursor: None,
        limit: 10,
    };
    store.list(&filter).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
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
        let outcomes: Vec<_> = leased.into_iter().map(accepted).collect();
        store.record(&outcomes).await.unwrap();
    }
    let retention = wasmhook_store::Retention {
        age: Duration::ZERO,
        count: 0,
    };
    while store.retain(&retention).await.unwrap() > 0 {}
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    // Counters and the deployment's settings stay.
    let stays = [":u", ":U", ":k", "wasmhook:meta"];
    keys.retain(|key| !stays.iter().any(|end| key.ends_with(end)));
    // These end with the leases.
    keys.retain(|key| !key.contains("}:H:"));
    assert!(keys.is_empty(), "{keys:?}");
}

/// Forty tenants of one shard, with sixty due deliveries each.
async fn crowd(server: &RedisServer) -> RedisStore {
    let mut config = config(server);
    config.shards = 1;
    let store = RedisStore::connect(config).await.unwrap();
    let events: Vec<_> = (0..60 * 40)
        .map(|n| {
            to(
                &event(&format!("heavy{}", n % 40), &format!("e{n}")),
                &["main"],
            )
        })
        .collect();
    store.enqueue(&events).await.unwrap();
    // All of them had a turn, and none is new.
    let mut taken = 0;
    while taken < 40 * 8 {
        taken += store.lease(&request(32)).await.unwrap().leased.len();
    }
    store
}

async fn push(store: &RedisStore, tenant: &str, ids: std::ops::Range<usize>) {
    let events: Vec<_> = ids
        .map(|n| to(&event(tenant, &format!("e{n}")), &["main"]))
        .collect();
    store.enqueue(&events).await.unwrap();
}

fn of<'a>(leased: &'a [Leased], tenant: &'a str) -> impl Iterator<Item = &'a Leased> {
    leased
        .iter()
        .filter(move |leased| leased.delivery.tenant_id.as_str() == tenant)
}

#[tokio::test]
async fn new_work_of_a_tenant_does_not_wait_for_a_round_of_all_others() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    push(&store, "light", 0..1).await;
    let leased = store.lease(&request(32)).await.unwrap().leased;
    assert_eq!(leased.len(), 32);
    assert_eq!(of(&leased, "light").count(), 1);
}

#[tokio::test]
async fn who_runs_out_of_work_and_has_some_again_is_not_new_each_time() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    let mut got = 0;
    // A round of all is ten calls.
    for call in 0..20 {
        push(&store, "pacer", call * 8..call * 8 + 8).await;
        let leased = store.lease(&request(32)).await.unwrap().leased;
        assert_eq!(leased.len(), 32);
        got += of(&leased, "pacer").count();
    }
    assert!((8..=32).contains(&got), "{got} of 640, with 41 tenants");
}

#[tokio::test]
async fn who_had_less_than_a_turn_goes_first_again_in_the_same_round() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    let mut first = Vec::new();
    // A round of all is ten calls.
    for call in 0..8 {
        push(&store, "light", call..call + 1).await;
        let leased = store.lease(&request(32)).await.unwrap().leased;
        first.push(of(&leased, "light").count());
    }
    assert_eq!(first, [1; 8], "each event waits for the next call only");
}

#[tokio::test]
async fn new_work_is_leased_apart_from_the_rest() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    let new_work = store.new_work().unwrap();
    // What is left of the crowd's is not new.
    assert_eq!(new_work.lease(&request(32), 128).await.len(), 0);
    new_work.wait_for_rest(Duration::from_secs(60)).await;
    for event in 0..4 {
        push(&store, "light", event..event + 1).await;
        let nothing = request(0);
        let none = new_work.wait(&nothing, 128, Duration::from_secs(60));
        assert_eq!(none.await.len(), 0);
        let leased = new_work.lease(&request(32), 128).await;
        assert_eq!(of(&leased, "light").count(), 1);
        assert_eq!(leased.len(), 1);
    }
    // Who has some in flight is not served again where only who has less is.
    push(&store, "light", 4..5).await;
    assert_eq!(new_work.lease(&request(32), 4).await.len(), 0);
    assert_eq!(
        new_work.lease(&request(32), 128).await.len(),
        0,
        "it is not new any more"
    );
    // Who has more than a turn is served with all others from there on.
    push(&store, "other", 0..100).await;
    let leased = new_work.lease(&request(64), 128).await.len();
    assert!((1..=8).contains(&leased), "{leased} of 100");
    new_work.wait_for_rest(Duration::from_secs(60)).await;
}

/// Returns when what is enqueued is leased for this task, too.
async fn waiting(store: &Arc<RedisStore>, max: usize) -> tokio::task::JoinHandle<Vec<Leased>> {
    let store = Arc::clone(store);
    // News of the start.
    let new_work = store.new_work().unwrap();
    assert_eq!(new_work.lease(&request(8), 128).await.len(), 0);
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(async move {
        let new_work = store.new_work().unwrap();
        let request = request(max);
        let brought = new_work.wait(&request, 128, Duration::from_secs(60));
        tokio::pin!(brought);
        let first = std::future::poll_fn(|context| Poll::Ready(brought.as_mut().poll(context)));
        assert!(first.await.is_pending());
        ready.send(()).unwrap();
        brought.await
    });
    is_ready.await.unwrap();
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_while_a_worker_waits_is_leased_by_the_same_step() {
    let server = RedisServer::start().unwrap();
    let store = Arc::new(store(&server).await);
    for event in 0..50 {
        let waiting = waiting(&store, 8).await;
        push(&store, "acme", event..event + 1).await;
        let mut leased = waiting.await.unwrap();
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].event.id.as_str(), format!("e{event}"));
        store.record(&[accepted(leased.remove(0))]).await.unwrap();
    }
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    let (_, calls) = stats.split_once("cmdstat_fcall:calls=").unwrap();
    let calls: usize = calls.split(',').next().unwrap().parse().unwrap();
    assert!(
        calls < 3 * 50,
        "{calls} for 50 events, of which one is to enqueue and one to record"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_more_than_a_worker_that_waits_would_take_is_told_of() {
    let server = RedisServer::start().unwrap();
    let store = Arc::new(store(&server).await);
    let waiting = waiting(&store, 3).await;
    push(&store, "acme", 0..5).await;
    assert_eq!(waiting.await.unwrap().len(), 3);
    let new_work = store.new_work().unwrap();
    let nothing = request(0);
    let news = new_work.wait(&nothing, 128, Duration::from_secs(60));
    assert_eq!(news.await.len(), 0);
    assert_eq!(store.lease(&request(8)).await.unwrap().leased.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_waiting_while_something_is_enqueued_loses_nothing() {
    let server = RedisServer::start().unwrap();
    let store = Arc::new(store(&server).await);
    for event in 0..50 {
        let waiting = waiting(&store, 8).await;
        let pushing = tokio::spawn({
            let store = Arc::clone(&store);
            async move { push(&store, "acme", event..event + 1).await }
        });
        tokio::time::sleep(20 * Duration::from_micros(1) * u32::try_from(event).unwrap()).await;
        store.new_work().unwrap().interrupt();
        let mut leased = waiting.await.unwrap();
        pushing.await.unwrap();
        if leased.is_empty() {
            leased = store.lease(&request(8)).await.unwrap().leased;
        }
        assert_eq!(leased.len(), 1, "of event {event}");
        store.record(&[accepted(leased.remove(0))]).await.unwrap();
    }
}

/// A measurement, not a test: `cargo test --release -p wasmhook-store --test redis -- --ignored
/// --nocapture what_a_delivery_costs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_delivery_costs() {
    const TOTAL: usize = 16_384;
    for size in [1, 16, 128] {
        let server = RedisServer::start_with(Durability::EverySecond, &[]).unwrap();
        let store = store(&server).await;
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let before = cpu_seconds(&mut connection).await;
        let mut parts = [0.0; 3];
        let start = Instant::now();
        let total = if size == 1 { TOTAL / 8 } else { TOTAL };
        for round in 0..total / size {
            let batch: Vec<_> = (0..size)
                .map(|n| {
                    let tenant = format!("tenant{}", n % 8);
                    let mut item = to(&event(&tenant, &format!("evt_{round}_{n}")), &["main"]);
                    let payload = format!("\"{}\"", "x".repeat(1022));
                    item.event.payload = wasmhook_core::Payload::new(payload.into_bytes()).unwrap();
                    item
                })
                .collect();
            let a = Instant::now();
            store.enqueue(&batch).await.unwrap();
            let b = Instant::now();
            let mut ten = request(size);
            ten.max_per_endpoint = 1000;
            let leased = store.lease(&ten).await.unwrap().leased;
            let c = Instant::now();
            assert_eq!(leased.len(), size);
            let outcomes: Vec<_> = leased.into_iter().map(accepted).collect();
            store.record(&outcomes).await.unwrap();
            parts[0] += (b - a).as_secs_f64();
            parts[1] += (c - b).as_secs_f64();
            parts[2] += c.elapsed().as_secs_f64();
        }
        let each = |seconds: f64| seconds * 1e6 / f64::from(u32::try_from(total).unwrap());
        println!(
            "batch {size}: {:.1} µs CPU of Redis per delivery; wall {:.1} µs = enqueue {:.1} + lease {:.1} + record {:.1}",
            each(cpu_seconds(&mut connection).await - before),
            each(start.elapsed().as_secs_f64()),
            each(parts[0]),
            each(parts[1]),
            each(parts[2]),
        );
    }
}

/// The processor time that the server has used.
async fn cpu_seconds(connection: &mut redis::aio::MultiplexedConnection) -> f64 {
    let info: String = redis::cmd("INFO")
        .arg("cpu")
        .query_async(connection)
        .await
        .unwrap();
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(*name, "used_cpu_sys" | "used_cpu_user"))
        .map(|(_, value)| value.trim().parse::<f64>().unwrap())
        .sum()
}

fn accepted(leased: Leased) -> wasmhook_store::Outcome {
    let now = jiff::Timestamp::now();
    let number = leased.delivery.attempt + 1;
    let attempt = wasmhook_core::attempt::Attempt::answered(number, now, Duration::ZERO, 200);
    let done = wasmhook_core::Conclusion::Succeeded;
    wasmhook_store::Outcome {
        delivery: leased.delivery.concluded(&attempt, done, now),
        leased,
        attempt,
    }
}

mod stream {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    async fn open(server: &RedisServer, consumer: &str) -> RedisStream {
        let mut config = config(server);
        config.consumer = consumer.to_owned();
        config.claim_after = Duration::from_millis(100);
        RedisStream::connect(config).await.unwrap()
    }

    fn draft(n: usize) -> EventDraft {
        EventDraft {
            id: format!("evt_{n}"),
            tenant: "acme".to_owned(),
            event_type: "a.b".to_owned(),
            payload: Bytes::from(format!("{{ \"n\" : {n}.0 }}")),
            occurred_at: n
                .is_multiple_of(2)
                .then(|| "2026-01-31T09:30:00Z".to_owned()),
            deliver_at: n
                .is_multiple_of(3)
                .then(|| "2999-01-31T09:30:00Z".to_owned()),
            ordering_key: n.is_multiple_of(5).then(|| format!("order-{n} ☂")),
        }
    }

    async fn connection(server: &RedisServer) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(server.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn length(server: &RedisServer) -> usize {
        redis::cmd("XLEN")
            .arg("wasmhook:events")
            .query_async(&mut connection(server).await)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn what_is_pushed_is_read_once_and_removed() {
        let server = RedisServer::start().unwrap();
        let (one, two) = (open(&server, "one").await, open(&server, "two").await);
        one.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
        let first = one.read(2, WAIT).await.unwrap();
        let second = two.read(10, WAIT).await.unwrap();
        assert_eq!((first.len(), second.len()), (2, 1));
        for (n, entry) in first.iter().chain(&second).enumerate() {
            let expected = draft(n + 1);
            assert_eq!(entry.draft.id, expected.id);
            assert_eq!(entry.draft.tenant, expected.tenant);
            assert_eq!(entry.draft.event_type, expected.event_type);
            assert_eq!(entry.draft.payload, expected.payload);
            assert_eq!(entry.draft.occurred_at, expected.occurred_at);
        }
        let ids: Vec<_> = first.into_iter().chain(second).map(|e| e.id).collect();
        one.acknowledge(&ids).await.unwrap();
        one.acknowledge(&ids).await.unwrap();
        one.acknowledge(&[]).await.unwrap();
        assert_eq!(length(&server).await, 0);
        assert!(one.read(10, WAIT).await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_waits_for_what_comes() {
        let server = RedisServer::start().unwrap();
        let (reader, writer) = (open(&server, "one").await, open(&server, "two").await);
        let reading = tokio::spawn(async move {
            let start = Instant::now();
            loop {
                let entries = reader.read(10, Duration::from_secs(4)).await.unwrap();
                if !entries.is_empty() {
                    return entries;
                }
                assert!(start.elapsed() < Duration::from_secs(20));
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        writer.push(&[draft(1)]).await.unwrap();
        assert_eq!(reading.await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_restarted_host_goes_on_with_its_own() {
        let server = RedisServer::start().unwrap();
        let before = open(&server, "one").await;
        before.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
        let read = before.read(10, WAIT).await.unwrap();
        before.acknowledge(&[read[0].id.clone()]).await.unwrap();
        drop(before);
        let after = open(&server, "one").await;
        after.push(&[draft(4)]).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            for entry in after.read(1, WAIT).await.unwrap() {
                after.acknowledge(&[entry.id]).await.unwrap();
                seen.push(entry.draft.id);
            }
        }
        assert_eq!(seen, ["evt_2", "evt_3", "evt_4"]);
    }

    #[tokio::test]
    async fn what_a_dead_host_left_is_taken_over() {
        let server = RedisServer::start().unwrap();
        let dead = open(&server, "dead").await;
        dead.push(&[draft(1), draft(2)]).await.unwrap();
        assert_eq!(dead.read(10, WAIT).await.unwrap().len(), 2);
        drop(dead);
        let heir = open(&server, "heir").await;
        let mut seen = 0;
        let start = Instant::now();
        while seen < 2 {
            let entries = heir.read(1, Duration::from_millis(50)).await.unwrap();
            for entry in entries {
                heir.acknowledge(&[entry.id]).await.unwrap();
                seen += 1;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(length(&server).await, 0);
    }

    #[tokio::test]
    async fn a_lost_group_or_stream_is_made_again() {
        let server = RedisServer::start().unwrap();
        let stream = open(&server, "one").await;
        let mut other = connection(&server).await;
        redis::cmd("XGROUP")
            .arg("DESTROY")
            .arg("wasmhook:events")
            .arg("wasmhook")
            .exec_async(&mut other)
            .await
            .unwrap();
        stream.push(&[draft(1)]).await.unwrap();
        let entries = until_read(&stream).await;
        stream.acknowledge(&[entries[0].id.clone()]).await.unwrap();
        redis::cmd("FLUSHALL").exec_async(&mut other).await.unwrap();
        assert!(stream.read(10, Duration::ZERO).await.unwrap().is_empty());
        stream.push(&[draft(2)]).await.unwrap();
        assert_eq!(until_read(&stream).await[0].draft.id, "evt_2");
    }

    async fn until_read(stream: &RedisStream) -> Vec<wasmhook_store::StreamEntry> {
        for _ in 0..20 {
            let entries = stream.read(10, WAIT).await.unwrap();
            if !entries.is_empty() {
                return entries;
            }
        }
        panic!("nothing comes");
    }

    #[tokio::test]
    async fn odd_entries_become_drafts_that_validation_can_name() {
        let server = RedisServer::start().unwrap();
        let stream = open(&server, "one").await;
        let mut other = connection(&server).await;
        let mut add = redis::cmd("XADD");
        add.arg("wasmhook:events")
            .arg("*")
            .arg("tenant")
            .arg("acme");
        add.arg("colour").arg("red").arg("id").arg(&b"\xff\xfe"[..]);
        add.exec_async(&mut other).await.unwrap();
        let entries = stream.read(10, WAIT).await.unwrap();
        assert_eq!(entries.len(), 1);
        let draft = &entries[0].draft;
        assert_eq!(draft.tenant, "acme");
        assert!(draft.event_type.is_empty() && draft.payload.is_empty());
        assert!(draft.occurred_at.is_none());
    }

    #[tokio::test]
    async fn deleted_entries_are_passed_over() {
        let server = RedisServer::start().unwrap();
        let before = open(&server, "one").await;
        before.push(&[draft(1), draft(2)]).await.unwrap();
        let read = before.read(10, WAIT).await.unwrap();
        drop(before);
        redis::cmd("XDEL")
            .arg("wasmhook:events")
            .arg(&read[0].id)
            .exec_async(&mut connection(&server).await)
            .await
            .unwrap();
        let after = open(&server, "one").await;
        let entries = after.read(10, WAIT).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].draft.id, "evt_2");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_interrupted_read_loses_nothing() {
        let server = RedisServer::start().unwrap();
        let (reader, writer) = (open(&server, "one").await, open(&server, "two").await);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..20 {
            let reading = reader.read(10, Duration::from_secs(4));
            let pause = Duration::from_micros(n * 150);
            let _ = tokio::time::timeout(pause, async {
                let (entries, ()) = tokio::join!(reading, async {
                    writer
                        .push(&[draft(usize::try_from(n).unwrap())])
                        .await
                        .unwrap();
                });
                for entry in entries.unwrap() {
                    seen.insert(entry.draft.id);
                }
            })
            .await;
        }
        let pushed = length(&server).await;
        for _ in 0..5 {
            for entry in reader.read(100, WAIT).await.unwrap() {
                seen.insert(entry.draft.id);
            }
        }
        assert!(seen.len() >= pushed, "{} of {pushed}", seen.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_restarted_server_is_found_again() {
        let mut server = RedisServer::start_with(Durability::Always, &[]).unwrap();
        let stream = open(&server, "one").await;
        stream.push(&[draft(1)]).await.unwrap();
        assert!(stream.read(10, WAIT).await.unwrap().len() == 1);
        server.kill().unwrap();
        let error = stream.read(10, WAIT).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        server.restart().unwrap();
        let entries = until(|| stream.read(10, WAIT)).await;
        assert_eq!(entries.len(), 1, "its own entry comes first");
    }
}
