//! Promises about sequences: deliveries that go one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_core::{DeliveryId, DeliveryState, OnDeadLetter, OrderingKey, Sequence};

use super::Subject;
use super::steps::{
    LONG, PATIENCE, SHORT, await_work, dead, event, failed, get, put, record, retain_all, state,
    succeeded, take, take_one, take_with, tenant, to, written,
};
use crate::{EventDeliveries, Leased, Recorded, StoreError};

/// An event with its delivery to `main`, in the sequence of a key.
fn ordered(id: &str, key: &str, on_dead_letter: OnDeadLetter) -> EventDeliveries {
    let mut item = to(&event("acme", id), &["main"]);
    for delivery in &mut item.deliveries {
        delivery.sequence = Some(Sequence {
            key: OrderingKey::new(key).ok(),
            on_dead_letter,
            max_attempts: None,
        });
    }
    item
}

async fn put_ordered(store: &Subject, id: &str, key: &str, on: OnDeadLetter) -> DeliveryId {
    let item = ordered(id, key, on);
    let delivery = item.deliveries[0].id.clone();
    assert_eq!(store.enqueue(&[item]).await.unwrap()[0].created, 1);
    delivery
}

fn events(leased: &[Leased]) -> BTreeSet<&str> {
    let ids = leased.iter().map(|leased| leased.event.id.as_str());
    ids.collect()
}

async fn take_none(store: &Subject) {
    let leased = take(store, 100).await;
    assert!(leased.is_empty(), "{:?} went out of turn", events(&leased));
}

/// Takes the one delivery that there is to take.
async fn take_event(store: &Subject, id: &str) -> Leased {
    let mut leased = take(store, 100).await;
    assert_eq!(events(&leased), BTreeSet::from([id]));
    leased.remove(0)
}

async fn assert_sound(store: &Subject) {
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Deliveries of one key to one endpoint are leased one at a time, in the order of their coming. Those of
/// other keys and endpoints, and those of none, do not wait for them.
pub async fn a_sequence_goes_one_after_the_other(store: Subject) {
    for n in 0..4 {
        put_ordered(&store, &format!("a_{n}"), "a", OnDeadLetter::Skip).await;
        put_ordered(&store, &format!("b_{n}"), "b", OnDeadLetter::Skip).await;
        put_ordered(&store, &format!("all_{n}"), "", OnDeadLetter::Skip).await;
    }
    put(&store, "acme", "plain_0", &["main"]).await;
    put(&store, "acme", "plain_1", &["main"]).await;
    assert_eq!(store.backlog().await.unwrap().waiting, 14);
    for n in 0..4 {
        let leased = take(&store, 100).await;
        let mut expected = BTreeSet::from([format!("a_{n}"), format!("b_{n}"), format!("all_{n}")]);
        if n == 0 {
            expected.extend(["plain_0".to_owned(), "plain_1".to_owned()]);
        }
        let found: BTreeSet<_> = events(&leased).into_iter().map(str::to_owned).collect();
        assert_eq!(found, expected);
        take_none(&store).await;
        assert_sound(&store).await;
        let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
        let answers = store.record(&outcomes).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Recorded::Written));
    }
    take_none(&store).await;
    assert_eq!(store.backlog().await.unwrap().succeeded, 14);
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 14);
    assert_sound(&store).await;
}

/// A batch of events is a sequence in the order of the batch, however often it is pushed.
pub async fn a_batch_is_in_order(store: Subject) {
    let batch: Vec<_> = (0..5)
        .map(|n| ordered(&format!("evt_{n}"), "key", OnDeadLetter::Skip))
        .collect();
    store.enqueue(&batch).await.unwrap();
    store.enqueue(&batch).await.unwrap();
    for n in 0..5 {
        let leased = take_event(&store, &format!("evt_{n}")).await;
        written(&store, succeeded(leased)).await;
    }
    take_none(&store).await;
}

/// A delivery keeps its turn while it waits for another attempt, and when its lease is lost or given back.
pub async fn a_turn_outlasts_failures_and_lost_leases(store: Subject) {
    let first = put_ordered(&store, "evt_1", "key", OnDeadLetter::Skip).await;
    let second = put_ordered(&store, "evt_2", "key", OnDeadLetter::Skip).await;
    let leased = take_event(&store, "evt_1").await;
    assert_eq!(
        get(&store, "acme", &second).await.behind,
        Some(first.clone())
    );
    assert_eq!(get(&store, "acme", &first).await.behind, None);
    store.release(&[leased]).await.unwrap();
    let leased = take_one(&store, SHORT).await;
    assert_eq!(leased.event.id.as_str(), "evt_1");
    let again = take_one(&store, LONG).await;
    assert_eq!(again.event.id.as_str(), "evt_1", "after a lost lease");
    assert_eq!(record(&store, succeeded(leased)).await, Recorded::LeaseLost);
    let before = Instant::now();
    written(&store, failed(again, SHORT * 3)).await;
    let early = take(&store, 100).await;
    if before.elapsed() < SHORT * 2 {
        assert!(early.is_empty(), "{:?} went out of turn", events(&early));
        let again = take_one(&store, LONG).await;
        assert_eq!(again.event.id.as_str(), "evt_1", "after a failure");
        written(&store, succeeded(again)).await;
        let next = take_event(&store, "evt_2").await;
        assert_eq!(next.delivery.attempt, 0);
    }
    assert_sound(&store).await;
}

/// After a dead letter the next goes, unless it blocks.
pub async fn a_dead_letter_lets_the_next_go(store: Subject) {
    let first = put_ordered(&store, "evt_1", "key", OnDeadLetter::Skip).await;
    put_ordered(&store, "evt_2", "key", OnDeadLetter::Skip).await;
    let leased = take_event(&store, "evt_1").await;
    written(&store, dead(leased)).await;
    take_event(&store, "evt_2").await;
    let refused = store.skip(&tenant("acme"), &first).await;
    assert!(matches!(
        refused,
        Err(StoreError::NotBlocking(DeliveryState::DeadLetter))
    ));
    assert_sound(&store).await;
}

/// A dead letter that blocks is kept and held up for until it is replayed and succeeds.
pub async fn a_blocking_dead_letter_is_waited_for(store: Subject) {
    let first = put_ordered(&store, "evt_1", "key", OnDeadLetter::Block).await;
    let second = put_ordered(&store, "evt_2", "key", OnDeadLetter::Block).await;
    let leased = take_event(&store, "evt_1").await;
    written(&store, dead(leased)).await;
    take_none(&store).await;
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 0);
    assert_eq!(
        state(&store, "acme", &first).await,
        DeliveryState::DeadLetter
    );
    assert_eq!(
        get(&store, "acme", &second).await.behind,
        Some(first.clone())
    );
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.waiting, backlog.dead_letter), (1, 1));
    assert_sound(&store).await;
    store.replay(&tenant("acme"), &first).await.unwrap();
    let again = take_event(&store, "evt_1").await;
    written(&store, dead(again)).await;
    take_none(&store).await;
    store.replay(&tenant("acme"), &first).await.unwrap();
    let again = take_event(&store, "evt_1").await;
    written(&store, succeeded(again)).await;
    take_event(&store, "evt_2").await;
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 1);
    assert_sound(&store).await;
}

/// A dead letter that blocks is skipped by hand: the next goes, and it is kept as long as any.
pub async fn a_blocking_dead_letter_is_skipped_by_hand(store: Subject) {
    let first = put_ordered(&store, "evt_1", "key", OnDeadLetter::Block).await;
    let second = put_ordered(&store, "evt_2", "key", OnDeadLetter::Block).await;
    let leased = take_event(&store, "evt_1").await;
    let acme = tenant("acme");
    let refused = store.skip(&acme, &first).await;
    assert!(
        matches!(refused, Err(StoreError::NotBlocking(_))),
        "{refused:?}"
    );
    written(&store, dead(leased)).await;
    let foreign = store.skip(&tenant("globex"), &first).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
    let behind = store.skip(&acme, &second).await;
    assert!(matches!(
        behind,
        Err(StoreError::NotBlocking(DeliveryState::Pending))
    ));
    take_none(&store).await;
    store.skip(&acme, &first).await.unwrap();
    let again = store.skip(&acme, &first).await;
    assert!(
        matches!(again, Err(StoreError::NotBlocking(_))),
        "{again:?}"
    );
    let next = take_event(&store, "evt_2").await;
    assert_eq!(
        state(&store, "acme", &first).await,
        DeliveryState::DeadLetter
    );
    assert_eq!(retain_all(&store, Duration::ZERO, 0).await, 1);
    written(&store, succeeded(next)).await;
    assert_sound(&store).await;
}

/// A replayed delivery goes before those that came after it and have not gone yet, and beside none.
pub async fn a_replayed_delivery_takes_its_old_place(store: Subject) {
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(put_ordered(&store, &format!("evt_{n}"), "key", OnDeadLetter::Skip).await);
    }
    for id in ["evt_0", "evt_1"] {
        let leased = take_event(&store, id).await;
        written(&store, succeeded(leased)).await;
    }
    let leased = take_event(&store, "evt_2").await;
    for n in [1, 0] {
        store.replay(&tenant("acme"), &ids[n]).await.unwrap();
    }
    take_none(&store).await;
    assert_eq!(
        get(&store, "acme", &ids[0]).await.behind,
        Some(ids[2].clone())
    );
    assert_sound(&store).await;
    written(&store, succeeded(leased)).await;
    for (id, attempt) in [("evt_0", 1), ("evt_1", 1), ("evt_3", 0)] {
        let leased = take_event(&store, id).await;
        assert_eq!(leased.delivery.attempt, attempt);
        written(&store, succeeded(leased)).await;
    }
    // Alone in its sequence it is due at once.
    store.replay(&tenant("acme"), &ids[1]).await.unwrap();
    take_event(&store, "evt_1").await;
}

/// What waits for its time keeps its turn, and gets it when it is not its time yet.
pub async fn a_scheduled_delivery_keeps_its_turn(store: Subject) {
    let before = Instant::now();
    let mut batch = Vec::new();
    for (id, wait) in [("evt_1", 0), ("evt_2", 3), ("evt_3", 0)] {
        let mut item = ordered(id, "key", OnDeadLetter::Skip);
        let delivery = &mut item.deliveries[0];
        delivery.next_at = delivery.created_at + SHORT * wait;
        batch.push(item);
    }
    store.enqueue(&batch).await.unwrap();
    let leased = take_event(&store, "evt_1").await;
    written(&store, succeeded(leased)).await;
    let early = take_with(&store, 100, LONG, 100).await;
    if before.elapsed() < SHORT * 2 {
        assert!(early.leased.is_empty(), "{:?} went", events(&early.leased));
        assert!(early.next_due.unwrap() <= SHORT * 3);
        let leased = take_one(&store, LONG).await;
        assert_eq!(leased.event.id.as_str(), "evt_2");
        assert!(before.elapsed() >= SHORT * 2);
        written(&store, succeeded(leased)).await;
        take_event(&store, "evt_3").await;
    }
    assert_sound(&store).await;
}

/// Who waits for work hears that the next of a sequence may go.
pub async fn the_end_of_one_wakes_who_waits(store: Subject) {
    put_ordered(&store, "evt_1", "key", OnDeadLetter::Skip).await;
    put_ordered(&store, "evt_2", "key", OnDeadLetter::Skip).await;
    let leased = take_event(&store, "evt_1").await;
    take_none(&store).await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            written(&store, succeeded(leased)).await;
        })
    };
    await_work(&store).await;
    writer.await.unwrap();
}

/// Many workers at many sequences, with failures: each goes in order, one at a time, and to the end.
pub async fn sequences_are_in_order_whoever_works(store: Subject) {
    const KEYS: usize = 6;
    const EACH: usize = 12;
    let mut batch = Vec::new();
    for n in 0..EACH {
        for key in 0..KEYS {
            let id = format!("{key}_{n}");
            batch.push(ordered(&id, &format!("key {key}"), OnDeadLetter::Skip));
        }
    }
    store.enqueue(&batch).await.unwrap();
    let accepted: Arc<std::sync::Mutex<Vec<Vec<usize>>>> =
        Arc::new(std::sync::Mutex::new(vec![Vec::new(); KEYS]));
    let start = Instant::now();
    let workers = (0..4).map(|worker| {
        let (store, accepted) = (Arc::clone(&store), Arc::clone(&accepted));
        tokio::spawn(async move {
            loop {
                let done: usize = accepted.lock().unwrap().iter().map(Vec::len).sum();
                if done == KEYS * EACH {
                    return;
                }
                assert!(start.elapsed() < PATIENCE, "only {done} went");
                for leased in take(&store, 3).await {
                    let (key, number) = leased.event.id.as_str().split_once('_').unwrap();
                    let (key, number): (usize, usize) =
                        (key.parse().unwrap(), number.parse().unwrap());
                    assert_eq!(accepted.lock().unwrap()[key].len(), number, "out of turn");
                    if leased.delivery.attempt == 0 && (number + worker) % 3 == 0 {
                        written(&store, failed(leased, Duration::from_millis(2))).await;
                    } else {
                        // Before it is recorded: what follows may go the moment that it is.
                        accepted.lock().unwrap()[key].push(number);
                        written(&store, succeeded(leased)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    for numbers in accepted.lock().unwrap().iter() {
        assert_eq!(*numbers, (0..EACH).collect::<Vec<_>>());
    }
    assert_sound(&store).await;
}
