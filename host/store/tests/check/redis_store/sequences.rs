//! Sequences lost, or in which it is nobody's turn, or too many's.

use wasmhook_store::{Finding, Store as _};

use super::{by_hand, id_of, make};
use crate::in_order::{drains_in_order, in_order, put_in_order};
use crate::steps::{end, put, record, take};
use crate::verdict::finds_and_mends;

/// The sequence of the whole endpoint `main` of acme.
const SEQUENCE: &str = "g:acme\0main\0";

#[tokio::test]
async fn a_lost_sequence_is_put_together_again() {
    let (_server, store, mut connection) = make().await;
    let held = put_in_order(&store, 6).await;
    by_hand(&mut connection, "DEL", SEQUENCE, &[]).await;
    let report = finds_and_mends(&store, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 5);
    assert_eq!(report.findings[&Finding::Sequence].count, 1);
    drains_in_order(&store, held, 0..6).await;
}

#[tokio::test]
async fn a_lost_sequence_whose_turn_was_due_is_put_together_again() {
    let (_server, store, mut connection) = make().await;
    let held = put_in_order(&store, 6).await;
    store.release(&held).await.unwrap();
    by_hand(&mut connection, "DEL", SEQUENCE, &[]).await;
    finds_and_mends(&store, Finding::Sequence).await;
    drains_in_order(&store, Vec::new(), 0..6).await;
}

#[tokio::test]
async fn a_sequence_in_which_it_is_nobodys_turn_goes_on() {
    let (_server, store, mut connection) = make().await;
    let mut held = put_in_order(&store, 4).await;
    let first = held[0].delivery.id.to_string();
    // As if the record that ended the first had not let the next one go.
    record(&store, end(held.remove(0), 204)).await;
    let second = take(&store, 9).await.remove(0);
    by_hand(
        &mut connection,
        "ZREM",
        "l",
        &[&format!("acme\0{}", second.delivery.id)],
    )
    .await;
    by_hand(
        &mut connection,
        "ZREM",
        SEQUENCE,
        &[second.delivery.id.as_str()],
    )
    .await;
    by_hand(&mut connection, "ZADD", SEQUENCE, &["0", &first]).await;
    let report = finds_and_mends(&store, Finding::Sequence).await;
    assert_eq!(report.findings[&Finding::Lost].count, 1);
    drains_in_order(&store, Vec::new(), 1..4).await;
}

#[tokio::test]
async fn only_one_of_a_sequence_has_its_turn() {
    let (_server, store, mut connection) = make().await;
    let held = put_in_order(&store, 5).await;
    // One goes out of turn, another stands in the lane while it waits for its turn.
    let third = in_order(2).deliveries[0].id.to_string();
    by_hand(&mut connection, "ZADD", SEQUENCE, &["CH", "0", &third]).await;
    by_hand(
        &mut connection,
        "RPUSH",
        "q:acme\0main",
        &[&format!("-{third}")],
    )
    .await;
    let fourth = in_order(3).deliveries[0].id.to_string();
    by_hand(
        &mut connection,
        "RPUSH",
        "q:acme\0main",
        &[&format!("-{fourth}")],
    )
    .await;
    let report = finds_and_mends(&store, Finding::Sequence).await;
    assert_eq!(report.findings[&Finding::Doubled].count, 1);
    drains_in_order(&store, held, 0..5).await;
}

#[tokio::test]
async fn what_does_not_belong_in_a_sequence_leaves_it() {
    let (_server, store, mut connection) = make().await;
    let held = put_in_order(&store, 3).await;
    put(&store, "acme", "plain", &["main"]).await;
    let plain = id_of("acme", "plain");
    let members = ["9", "whdel_gone", "8", &plain];
    by_hand(&mut connection, "ZADD", SEQUENCE, &members).await;
    let moved = in_order(1).deliveries[0].id.to_string();
    by_hand(&mut connection, "ZADD", SEQUENCE, &["CH", "7", &moved]).await;
    let report = finds_and_mends(&store, Finding::Stray).await;
    assert_eq!(report.findings[&Finding::Stray].count, 3);
    let plain = take(&store, 9).await;
    assert_eq!(plain.len(), 1);
    store.release(&plain).await.unwrap();
    record(&store, end(take(&store, 9).await.remove(0), 204)).await;
    drains_in_order(&store, held, 0..3).await;
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
    let (_server, store, mut connection) = make().await;
    let held = put_in_order(&store, 3).await;
    store.release(&held).await.unwrap();
    by_hand(&mut connection, "DEL", "e:acme\0evt_0", &[]).await;
    by_hand(&mut connection, "DEL", "e:acme\0evt_1", &[]).await;
    finds_and_mends(&store, Finding::EventMissing).await;
    drains_in_order(&store, Vec::new(), 2..3).await;
}
