//! Sequences lost, or in which it is nobody's turn, or too many's.

use wasmhook_store::{Finding, Store as _};

use super::{id_of, make};
use crate::in_order::{drains_in_order, in_order};
use crate::queue::Queue;
use crate::steps::{end, put, record, take};

/// The sequence of the whole endpoint `main` of acme.
const SEQUENCE: &str = "g:acme\0main\0";

#[tokio::test]
async fn a_lost_sequence_is_put_together_again() {
    let queue = Queue::in_order(make().await, 6).await;
    queue.damage(&["DEL", SEQUENCE]);
    let report = queue.recovers_in_order(Finding::Lost, 0..6).await;
    assert_eq!(report.findings[&Finding::Lost].count, 5);
    assert_eq!(report.findings[&Finding::Sequence].count, 1);
}

#[tokio::test]
async fn a_lost_sequence_whose_turn_was_due_is_put_together_again() {
    let mut queue = Queue::in_order(make().await, 6).await;
    queue.release().await;
    queue.damage(&["DEL", SEQUENCE]);
    queue.recovers_in_order(Finding::Sequence, 0..6).await;
}

#[tokio::test]
async fn a_sequence_in_which_it_is_nobodys_turn_goes_on() {
    let mut queue = Queue::in_order(make().await, 4).await;
    let first = queue.held[0].delivery.id.to_string();
    // As if the record that ended the first had not let the next one go.
    record(&queue.store, end(queue.held.remove(0), 204)).await;
    let second = take(&queue.store, 9).await.remove(0).delivery;
    queue.damage(&["ZREM", "l", &format!("acme\0{}", second.id)]);
    queue.damage(&["ZREM", SEQUENCE, second.id.as_str()]);
    queue.damage(&["ZADD", SEQUENCE, "0", &first]);
    let report = queue.recovers_in_order(Finding::Sequence, 1..4).await;
    assert_eq!(report.findings[&Finding::Lost].count, 1);
}

#[tokio::test]
async fn only_one_of_a_sequence_has_its_turn() {
    let queue = Queue::in_order(make().await, 5).await;
    // One goes out of turn, another stands in the lane while it waits for its turn.
    let third = in_order(2).deliveries[0].id.to_string();
    queue.damage(&["ZADD", SEQUENCE, "CH", "0", &third]);
    queue.damage(&["RPUSH", "q:acme\0main", &format!("-{third}")]);
    let fourth = in_order(3).deliveries[0].id.to_string();
    queue.damage(&["RPUSH", "q:acme\0main", &format!("-{fourth}")]);
    let report = queue.recovers_in_order(Finding::Sequence, 0..5).await;
    assert_eq!(report.findings[&Finding::Doubled].count, 1);
}

#[tokio::test]
async fn what_does_not_belong_in_a_sequence_leaves_it() {
    let queue = Queue::in_order(make().await, 3).await;
    put(&queue.store, "acme", "plain", &["main"]).await;
    let plain = id_of("acme", "plain");
    queue.damage(&["ZADD", SEQUENCE, "9", "whdel_gone", "8", &plain]);
    let moved = in_order(1).deliveries[0].id.to_string();
    queue.damage(&["ZADD", SEQUENCE, "CH", "7", &moved]);
    let report = queue.finds(Finding::Stray).await;
    assert_eq!(report.findings[&Finding::Stray].count, 3);
    let plain = take(&queue.store, 9).await;
    assert_eq!(plain.len(), 1);
    queue.store.release(&plain).await.unwrap();
    record(
        &queue.store,
        end(take(&queue.store, 9).await.remove(0), 204),
    )
    .await;
    drains_in_order(&queue.store, queue.held, 0..3).await;
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
    let mut queue = Queue::in_order(make().await, 3).await;
    queue.release().await;
    queue.damage(&["DEL", "e:acme\0evt_0"]);
    queue.damage(&["DEL", "e:acme\0evt_1"]);
    queue.recovers_in_order(Finding::EventMissing, 2..3).await;
}
