//! New work: it wakes hosts, and does not wait for a round of all who have much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{Leased, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{hearing, lease, on_one_shard, push, request, store, waiting};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_another_host_wakes_this_one() {
    let server = RedisServer::start().unwrap();
    let mine = store(&server).await;
    for n in 0..5 {
        while mine.lease(&request(10)).await.unwrap().leased.len() == 10 {}
        let start = Instant::now();
        let writer = tokio::spawn({
            let batch = [to(&event("acme", &format!("evt_{n}")), &["main"])];
            let other = store(&server).await;
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
}

/// Forty tenants of one shard, with sixty due deliveries each.
async fn crowd(server: &RedisServer) -> RedisStore {
    let store = on_one_shard(server).await;
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
async fn who_has_little_does_not_wait_for_a_round_however_long_that_takes() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    let new_work = store.new_work();
    // Nobody else is served meanwhile, as when slow receivers hold all other places.
    for event in 0..40 {
        push(&store, "light", event..event + 1).await;
        let mut leased = new_work.lease(&request(4), 16).await;
        assert_eq!(of(&leased, "light").count(), 1, "event {event}");
        assert_eq!(leased.len(), 1);
        store.record(&[succeeded(leased.remove(0))]).await.unwrap();
    }
    // Whose receiver is slow has much in flight in the end, and takes its turns with all others.
    let mut in_flight = 0;
    for event in 40..80 {
        push(&store, "light", event..event + 1).await;
        in_flight += new_work.lease(&request(4), 128).await.len();
    }
    assert_eq!(in_flight, 16);
}

#[tokio::test]
async fn new_work_is_leased_apart_from_the_rest() {
    let server = RedisServer::start().unwrap();
    let store = crowd(&server).await;
    let new_work = store.new_work();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_while_a_worker_waits_is_leased_by_the_same_step() {
    let server = RedisServer::start().unwrap();
    let store = hearing(&server).await;
    for event in 0..50 {
        let waiting = waiting(&store, 8).await;
        push(&store, "acme", event..event + 1).await;
        let mut leased = waiting.await.unwrap();
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].event.id.as_str(), format!("e{event}"));
        store.record(&[succeeded(leased.remove(0))]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_more_than_a_worker_that_waits_would_take_is_told_of() {
    let server = RedisServer::start().unwrap();
    let store = hearing(&server).await;
    let waiting = waiting(&store, 3).await;
    push(&store, "acme", 0..5).await;
    assert_eq!(waiting.await.unwrap().len(), 3);
    let new_work = store.new_work();
    let nothing = request(0);
    let news = new_work.wait(&nothing, 128, Duration::from_secs(60));
    assert_eq!(news.await.len(), 0);
    assert_eq!(store.lease(&request(8)).await.unwrap().leased.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_waiting_while_something_is_enqueued_loses_nothing() {
    let server = RedisServer::start().unwrap();
    let store = hearing(&server).await;
    for event in 0..50 {
        let waiting = waiting(&store, 8).await;
        let pushing = tokio::spawn({
            let store = Arc::clone(&store);
            async move { push(&store, "acme", event..event + 1).await }
        });
        tokio::time::sleep(20 * Duration::from_micros(1) * u32::try_from(event).unwrap()).await;
        store.new_work().interrupt();
        let mut leased = waiting.await.unwrap();
        pushing.await.unwrap();
        if leased.is_empty() {
            leased = store.lease(&request(8)).await.unwrap().leased;
        }
        assert_eq!(leased.len(), 1, "of event {event}");
        store.record(&[succeeded(leased.remove(0))]).await.unwrap();
    }
}
