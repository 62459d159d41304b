//! Places lost, doubled, or without a delivery: lanes, rings, leases, the waiting set.

use jiff::Timestamp;
use wasmhook_core::{DeliveryId, Event, TenantId};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{Finding, Store as _};

use super::{id_of, make};
use crate::queue::Queue;
use crate::steps::{LOOK, OPEN, put_many};

#[tokio::test]
async fn a_lost_ring_is_rebuilt() {
    for key in ["t", "r:acme"] {
        let mut queue = Queue::full(make().await).await;
        queue.release().await;
        queue.damage(&["DEL", key]);
        queue.recovers(Finding::Unserved).await;
    }
}

#[tokio::test]
async fn a_lane_that_waits_for_a_place_that_nobody_frees_is_served_again() {
    let queue = Queue::full(make().await).await;
    queue.damage(&["DEL", "b"]);
    queue.recovers(Finding::Unserved).await;
}

#[tokio::test]
async fn a_lost_lane_is_filled_again() {
    let queue = Queue::full(make().await).await;
    queue.damage(&["DEL", "q:acme\0main"]);
    let report = queue.recovers(Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 6);
}

#[tokio::test]
async fn lost_leases_are_put_back() {
    let mut queue = Queue::full(make().await).await;
    queue.damage(&["DEL", "l"]);
    queue.held.clear();
    let report = queue.recovers(Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 6);
    assert!(report.findings.contains_key(&Finding::InFlight));
}

#[tokio::test]
async fn a_lost_waiting_set_is_filled_with_the_same_times() {
    let queue = Queue::full(make().await).await;
    let scheduled = Event {
        deliver_at: Some(Timestamp::from_millisecond(4_000_000_000_000).unwrap()),
        ..event("acme", "evt_scheduled")
    };
    let scheduled = to(&scheduled, &["main"]);
    queue.store.enqueue(&[scheduled]).await.unwrap();
    queue.damage(&["DEL", "w"]);
    let report = queue.finds(Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 7);
    let due: Vec<(String, f64)> = queue.ask(&["ZRANGE", "w", "0", "-1", "WITHSCORES"]);
    let acme = TenantId::new("acme").unwrap();
    assert_eq!(due.len(), 7);
    for (member, score) in due.iter().filter(|(member, _)| member.starts_with("acme")) {
        let id = DeliveryId::new(member.split('\0').next_back().unwrap()).unwrap();
        let kept = queue.store.get(&acme, &id).await.unwrap().unwrap();
        #[allow(
            clippy::cast_precision_loss,
            reason = "milliseconds of our time are exact"
        )]
        let next_at = kept.delivery.next_at.as_millisecond() as f64;
        assert!((score - next_at).abs() < 1.0);
    }
    queue.drains(OPEN).await;
}

#[tokio::test]
async fn what_is_in_two_places_is_in_one_again() {
    let queue = Queue::full(make().await).await;
    let leased = &queue.held[0].delivery;
    let lane = format!("q:{}\0main\0", leased.tenant_id);
    let entry = format!("-{}", leased.id);
    queue.damage(&["RPUSH", &lane, &entry, &entry]);
    let due = format!("-{}", id_of("acme", "evt_17"));
    queue.damage(&["LPUSH", "q:acme\0main", &due]);
    let waiting = format!("acme\0main\0{}", id_of("acme", "evt_16"));
    queue.damage(&["ZADD", "w", "1", &waiting]);
    let again = format!("-{}", id_of("acme", "evt_16"));
    queue.damage(&["RPUSH", "q:acme\0main", &again, &again]);
    let report = queue.recovers(Finding::Doubled).await;
    assert_eq!(report.findings[&Finding::Doubled].count, 3);
}

#[tokio::test]
async fn places_without_an_open_delivery_are_cleared() {
    let queue = Queue::full(make().await).await;
    let finished = format!("-{}", id_of("acme", "evt_0"));
    queue.damage(&["RPUSH", "q:acme\0main", "-whdel_none", &finished]);
    let scheduled = "1790000000000000whdel_never";
    queue.damage(&["RPUSH", "q:acme\0other", scheduled]);
    queue.damage(&["ZADD", "w", "1", "globex\0main\0whdel_gone"]);
    queue.damage(&["ZADD", "l", "9000000000000000", "globex\0whdel_gone"]);
    let report = queue.recovers(Finding::Stray).await;
    assert!(report.findings[&Finding::Stray].count >= 4);
}

#[tokio::test]
async fn an_entry_in_the_lane_of_another_endpoint_is_moved() {
    let queue = Queue::full(make().await).await;
    let id = id_of("acme", "evt_17");
    let entries: Vec<String> = queue.ask(&["LRANGE", "q:acme\0main", "0", "-1"]);
    let entry = entries.iter().find(|entry| entry.ends_with(&id)).unwrap();
    queue.damage(&["LREM", "q:acme\0main", "0", entry]);
    queue.damage(&["RPUSH", "q:acme\0other", entry]);
    queue.recovers(Finding::Lost).await;
}

#[tokio::test]
async fn a_long_lane_is_lost_and_found() {
    let queue = Queue::empty(make().await);
    put_many(&queue.store, 1600).await;
    assert_eq!(queue.store.check(LOOK).await.unwrap().looked.due, 1600);
    queue.damage(&["LTRIM", "q:acme\0main", "0", "99"]);
    let report = queue.finds(Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 1500);
    queue.drains(1600).await;
}
