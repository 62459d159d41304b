//! What is lost and comes back: the server, its functions, answers.

use std::time::{Duration, Instant};

use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_store::{CheckRequest, Recorded, Store as _, StoreError};
use wasmhook_testing::{Durability, RedisServer};

use crate::support::{hearing, lease, request, store, until, waiting};

#[tokio::test]
async fn the_functions_come_back_after_they_are_lost() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    let () = server.ask(&["FUNCTION", "FLUSH"]).unwrap();
    store
        .enqueue(&[to(&event("acme", "evt_1"), &["main"])])
        .await
        .unwrap();
    assert_eq!(lease(&store).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again_with_its_data() {
    let mut server = RedisServer::start_with(Durability::Always, &[]).unwrap();
    let mine = store(&server).await;
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    mine.enqueue(&batch).await.unwrap();
    server.kill().unwrap();
    let error = mine.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = mine.lease(&request(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.restart().unwrap();
    let again = until(|| mine.enqueue(&batch)).await;
    assert!(again[0].duplicate);
    let ten = request(10);
    assert_eq!(until(|| mine.lease(&ten)).await.leased.len(), 1);

    // Wake-ups come back as well.
    assert!(lease(&mine).await.is_empty());
    let other = store(&server).await;
    let start = Instant::now();
    other
        .enqueue(&[to(&event("acme", "evt_2"), &["main"])])
        .await
        .unwrap();
    loop {
        mine.wait_for_work(Duration::from_secs(30)).await.unwrap();
        if lease(&mine).await.len() == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
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
    let all = kept.into_iter().chain(leased).map(succeeded);
    let recorded = store.record(&all.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(recorded, [Recorded::Written; 3]);
    let report = store.check(CheckRequest::default()).await;
    assert!(report.unwrap().is_sound());
}

#[tokio::test]
async fn what_was_leased_when_it_was_enqueued_with_a_lost_answer_comes_again_at_once() {
    let server = RedisServer::start().unwrap();
    let store = hearing(&server).await;
    let waiting = waiting(&store, 8).await;
    server.pause().unwrap();
    let item = [to(&event("acme", "evt_1"), &["main"])];
    let patience = Duration::from_millis(100);
    let lost = tokio::time::timeout(patience, store.enqueue(&item)).await;
    assert!(lost.is_err());
    assert_eq!(waiting.await.unwrap().len(), 0);
    server.resume().unwrap();
    assert_eq!(lease(&store).await.len(), 0, "it is leased, unheard");
    let new_work = store.new_work();
    assert_eq!(new_work.lease(&request(8), 128).await.len(), 0);
    assert_eq!(lease(&store).await.len(), 1);
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
