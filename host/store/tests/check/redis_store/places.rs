//! Places lost, doubled, or without a delivery: lanes, rings, leases, the waiting set.

use jiff::Timestamp;
use wasmhook_core::{DeliveryId, Event, TenantId};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{Finding, Store as _};

use super::{SHARD, by_hand, id_of, make};
use crate::steps::{LOOK, fill};
use crate::verdict::{drains, finds_and_mends};

#[tokio::test]
async fn a_lost_ring_is_rebuilt() {
    for key in ["t", "r:acme"] {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        store.release(&held).await.unwrap();
        by_hand(&mut connection, "DEL", key, &[]).await;
        finds_and_mends(&store, Finding::Unserved).await;
        drains(&store, Vec::new(), 18).await;
    }
}

#[tokio::test]
async fn a_lane_that_waits_for_a_place_that_nobody_frees_is_served_again() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    by_hand(&mut connection, "DEL", "b", &[]).await;
    finds_and_mends(&store, Finding::Unserved).await;
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn a_lost_lane_is_filled_again() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    by_hand(&mut connection, "DEL", "q:acme\0main", &[]).await;
    let report = finds_and_mends(&store, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 6);
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn lost_leases_are_put_back() {
    let (_server, store, mut connection) = make().await;
    fill(&store).await;
    by_hand(&mut connection, "DEL", "l", &[]).await;
    let report = finds_and_mends(&store, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 6);
    assert!(report.findings.contains_key(&Finding::InFlight));
    drains(&store, Vec::new(), 18).await;
}

#[tokio::test]
async fn a_lost_waiting_set_is_filled_with_the_same_times() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let scheduled = Event {
        deliver_at: Some(Timestamp::from_millisecond(4_000_000_000_000).unwrap()),
        ..event("acme", "evt_scheduled")
    };
    store.enqueue(&[to(&scheduled, &["main"])]).await.unwrap();
    by_hand(&mut connection, "DEL", "w", &[]).await;
    let report = finds_and_mends(&store, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 7);
    drains(&store, held, 18).await;
    let due: Vec<(String, f64)> = redis::cmd("ZRANGE")
        .arg(format!("{SHARD}w"))
        .arg(&["0", "-1", "WITHSCORES"])
        .query_async(&mut connection)
        .await
        .unwrap();
    let acme = TenantId::new("acme").unwrap();
    assert_eq!(due.len(), 7);
    for (member, score) in due.iter().filter(|(member, _)| member.starts_with("acme")) {
        let id = DeliveryId::new(member.split('\0').next_back().unwrap()).unwrap();
        let kept = store.get(&acme, &id).await.unwrap().unwrap();
        #[allow(
            clippy::cast_precision_loss,
            reason = "milliseconds of our time are exact"
        )]
        let next_at = kept.delivery.next_at.as_millisecond() as f64;
        assert!((score - next_at).abs() < 1.0);
    }
}

#[tokio::test]
async fn what_is_in_two_places_is_in_one_again() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let leased = &held[0].delivery;
    let lane = format!("q:{}\0main\0", leased.tenant_id);
    let entry = format!("-{}", leased.id);
    by_hand(&mut connection, "RPUSH", &lane, &[&entry, &entry]).await;
    let due = format!("-{}", id_of("acme", "evt_17"));
    by_hand(&mut connection, "LPUSH", "q:acme\0main", &[&due]).await;
    let waiting = format!("acme\0main\0{}", id_of("acme", "evt_16"));
    by_hand(&mut connection, "ZADD", "w", &["1", &waiting]).await;
    let again = format!("-{}", id_of("acme", "evt_16"));
    by_hand(&mut connection, "RPUSH", "q:acme\0main", &[&again, &again]).await;
    let report = finds_and_mends(&store, Finding::Doubled).await;
    assert_eq!(report.findings[&Finding::Doubled].count, 3);
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn places_without_an_open_delivery_are_cleared() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let finished = id_of("acme", "evt_0");
    by_hand(
        &mut connection,
        "RPUSH",
        "q:acme\0main",
        &["-whdel_none", &format!("-{finished}")],
    )
    .await;
    by_hand(
        &mut connection,
        "RPUSH",
        "q:acme\0other",
        &["1790000000000000whdel_never"],
    )
    .await;
    by_hand(
        &mut connection,
        "ZADD",
        "w",
        &["1", "globex\0main\0whdel_gone"],
    )
    .await;
    by_hand(
        &mut connection,
        "ZADD",
        "l",
        &["9000000000000000", "globex\0whdel_gone"],
    )
    .await;
    let report = finds_and_mends(&store, Finding::Stray).await;
    assert!(report.findings[&Finding::Stray].count >= 4);
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn an_entry_in_the_lane_of_another_endpoint_is_moved() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let id = id_of("acme", "evt_17");
    let entries: Vec<String> = redis::cmd("LRANGE")
        .arg(format!("{SHARD}q:acme\0main"))
        .arg(&["0", "-1"])
        .query_async(&mut connection)
        .await
        .unwrap();
    let entry = entries.iter().find(|entry| entry.ends_with(&id)).unwrap();
    by_hand(&mut connection, "LREM", "q:acme\0main", &["0", entry]).await;
    by_hand(&mut connection, "RPUSH", "q:acme\0other", &[entry]).await;
    finds_and_mends(&store, Finding::Lost).await;
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn a_long_lane_is_lost_and_found() {
    let (_server, store, mut connection) = make().await;
    for n in 0..40 {
        let batch: Vec<_> = (0..40)
            .map(|m| to(&event("acme", &format!("evt_{n}_{m}")), &["main"]))
            .collect();
        store.enqueue(&batch).await.unwrap();
    }
    assert_eq!(store.check(LOOK).await.unwrap().looked.due, 1600);
    by_hand(&mut connection, "LTRIM", "q:acme\0main", &["0", "99"]).await;
    let report = finds_and_mends(&store, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 1500);
    drains(&store, Vec::new(), 1600).await;
}
