//! Promises about time: deliveries that wait for theirs, and workers that wait for deliveries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmhook_core::{DeliveryState, Event};

use super::Subject;
use super::steps::{
    LONG, PATIENCE, SHORT, await_work, dead, event, failed, get, now, put, state, succeeded, take,
    take_one, take_with, tenant, to, written,
};
use crate::{EventDeliveries, Outcome};

/// A failed delivery is not leased before its time, and is after.
pub async fn a_failed_delivery_waits_for_its_time(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let wait = Duration::from_millis(400);
    let leased = take_one(&store, LONG).await;
    let before = Instant::now();
    written(&store, failed(leased, wait)).await;
    let early = take(&store, 10).await;
    if before.elapsed() < Duration::from_millis(300) {
        assert!(early.is_empty(), "leased before its time");
        assert_eq!(state(&store, "acme", &id).await, DeliveryState::Failed);
        let again = take_one(&store, LONG).await;
        assert!(before.elapsed() >= Duration::from_millis(350));
        assert_eq!(again.delivery.state, DeliveryState::Failed);
        assert_eq!(again.delivery.attempt, 1);
        assert_eq!(again.attempts.len(), 1);
    }
}

/// An event that is to be delivered at a time, with its deliveries.
fn scheduled(id: &str, wait: Duration, endpoints: &[&str]) -> EventDeliveries {
    let at = now().checked_add(wait).unwrap();
    let event = Event {
        deliver_at: Some(at),
        ..event("acme", id)
    };
    to(&event, endpoints)
}

/// A scheduled event is kept and counted as waiting, is not leased before its time, and is after.
pub async fn a_scheduled_event_waits_for_its_time(store: Subject) {
    let wait = Duration::from_millis(400);
    let before = Instant::now();
    let item = scheduled("evt_1", wait, &["main", "audit"]);
    let at = item.event.deliver_at;
    let id = item.deliveries[0].id.clone();
    let answers = store.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert_eq!(answers[0].created, 2);
    let again = store.enqueue(std::slice::from_ref(&item)).await.unwrap();
    assert!(again[0].duplicate, "pushed twice");
    let far = scheduled("evt_2", Duration::from_hours(24 * 300), &["main"]);
    let last = far.deliveries[0].id.clone();
    store.enqueue(&[far]).await.unwrap();
    let early = take_with(&store, 10, LONG, 10).await;
    if before.elapsed() < Duration::from_millis(300) {
        assert!(early.leased.is_empty(), "leased before its time");
        assert!(early.next_due.unwrap() <= wait + Duration::from_millis(100));
        let kept = get(&store, "acme", &id).await.delivery;
        assert_eq!(kept.state, DeliveryState::Pending);
        assert_eq!(Some(kept.next_at), at);
        assert!(kept.is_scheduled());
        assert_eq!(store.backlog().await.unwrap().waiting, 3);
        let kept = store.event(&tenant("acme"), &item.event.id).await.unwrap();
        assert_eq!(kept.unwrap().deliver_at, at);
        let first = take_one(&store, LONG).await;
        assert!(before.elapsed() >= Duration::from_millis(350));
        let second = take_one(&store, LONG).await;
        for leased in [first, second] {
            assert_eq!(leased.event, item.event);
            assert_eq!(leased.delivery.state, DeliveryState::Pending);
            assert_eq!(leased.delivery.attempt, 0);
            written(&store, succeeded(leased)).await;
        }
        let end = take_with(&store, 10, LONG, 10).await;
        assert!(end.leased.is_empty());
        assert!(end.next_due.unwrap() > Duration::from_hours(24 * 299));
    }
    assert_eq!(state(&store, "acme", &last).await, DeliveryState::Pending);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// A delivery whose time has passed when it is enqueued is due at once.
pub async fn a_time_that_is_past_is_now(store: Subject) {
    let mut item = scheduled("evt_1", Duration::from_millis(1), &["main"]);
    let made = now() - Duration::from_hours(1);
    item.deliveries[0].created_at = made;
    item.deliveries[0].next_at = made + Duration::from_mins(1);
    assert!(item.deliveries[0].is_scheduled());
    store.enqueue(&[item]).await.unwrap();
    assert_eq!(take(&store, 10).await.len(), 1);
}

/// Who waits for something later hears of an event that is scheduled sooner.
pub async fn a_scheduled_event_wakes_who_waits(store: Subject) {
    let late = scheduled("evt_1", PATIENCE * 10, &["main"]);
    store.enqueue(&[late]).await.unwrap();
    assert!(take(&store, 10).await.is_empty());
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            let soon = scheduled("evt_2", SHORT * 2, &["main"]);
            let at = soon.event.deliver_at.unwrap();
            store.enqueue(&[soon]).await.unwrap();
            at
        })
    };
    let start = Instant::now();
    let mut wait = PATIENCE * 10;
    let leased = loop {
        store.wait_for_work(wait).await.unwrap();
        assert!(start.elapsed() < PATIENCE, "slept through");
        let batch = take_with(&store, 10, LONG, 10).await;
        if !batch.leased.is_empty() {
            break batch.leased;
        }
        wait = batch.next_due.unwrap();
    };
    let at = writer.await.unwrap();
    assert!(
        Timestamp::now() >= at - Duration::from_millis(2),
        "too early"
    );
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].event.id.as_str(), "evt_2");
}

/// A lease call says when the next delivery becomes due or the next lease ends.
pub async fn next_due_is_reported(store: Subject) {
    assert_eq!(take_with(&store, 10, LONG, 10).await.next_due, None);
    put(&store, "acme", "evt_1", &["main"]).await;
    let leased = take_one(&store, LONG).await;
    let due = take_with(&store, 10, LONG, 10).await.next_due.unwrap();
    assert!(due <= LONG && due > LONG / 2, "the lease ends in {due:?}");
    written(&store, failed(leased, Duration::from_secs(20))).await;
    let due = take_with(&store, 10, LONG, 10).await.next_due.unwrap();
    assert!(
        due <= Duration::from_secs(21) && due > Duration::from_secs(5),
        "the retry is due in {due:?}"
    );
}

/// A delivery that is put off has its time moved, and no attempt added.
pub async fn a_failed_delivery_can_wait_longer_with_its_last_attempt(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    for _ in 0..2 {
        let leased = take_one(&store, LONG).await;
        written(&store, failed(leased, Duration::ZERO)).await;
    }
    let before = get(&store, "acme", &id).await;
    let mut leased = take_one(&store, LONG).await;
    let last = leased.attempts.pop().unwrap();
    let mut delivery = leased.delivery.clone();
    delivery.next_at = now() + Duration::from_secs(60);
    written(
        &store,
        Outcome {
            leased,
            delivery,
            attempt: last,
        },
    )
    .await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Failed);
    assert_eq!(
        (kept.delivery.attempt, &kept.attempts),
        (2, &before.attempts)
    );
    let batch = take_with(&store, 10, LONG, 10).await;
    assert!(batch.leased.is_empty(), "it waits on");
}

/// Where retries are counted from is kept with the outcome.
pub async fn an_attempt_need_not_use_up_a_retry(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let mut outcome = failed(take_one(&store, LONG).await, Duration::ZERO);
    outcome.delivery.replayed_at_attempt = 1;
    written(&store, outcome).await;
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.delivery.replayed_at_attempt, 1);
    assert_eq!(
        get(&store, "acme", &id).await.delivery.replayed_at_attempt,
        1
    );
}

/// Who waits returns when another task enqueues, replays or releases.
pub async fn work_wakes_who_waits(store: Subject) {
    assert!(take(&store, 10).await.is_empty());
    let id = {
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                tokio::time::sleep(SHORT).await;
                put(&store, "acme", "evt_1", &["main"]).await.remove(0)
            })
        };
        await_work(&store).await;
        writer.await.unwrap()
    };
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    assert!(take(&store, 10).await.is_empty());
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            store.replay(&tenant("acme"), &id).await.unwrap();
        })
    };
    await_work(&store).await;
    writer.await.unwrap();
    // Work that came between the last lease and the wait is not slept through.
    put(&store, "acme", "evt_2", &["main"]).await;
    await_work(&store).await;
}

/// Waiting without work ends after its time.
pub async fn waiting_ends_by_itself(store: Subject) {
    take(&store, 1).await;
    let waiting = store.wait_for_work(Duration::from_millis(100));
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("waiting ends")
        .unwrap();
}
