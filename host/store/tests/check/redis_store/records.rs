//! Counts, indexes and lists that do not agree with the records, and records that are damaged.

use std::collections::BTreeMap;
use std::time::Duration;

use wasmhook_core::{DeliveryId, DeliveryState, TenantId};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{Filter, Finding, Record, Retention, Store as _};

use super::{id_of, make};
use crate::queue::Queue;
use crate::steps::{LONG, LOOK, OPEN, REPAIR, end, put, put_many, record, take};
use crate::verdict::counts;

async fn listed(store: &RedisStore, tenant: &str, state: Option<DeliveryState>) -> Vec<String> {
    let filter = Filter {
        tenant: TenantId::new(tenant).unwrap(),
        state,
        cursor: None,
        limit: 10_000,
    };
    let page = store.list(&filter).await.unwrap();
    let id = |record: &Record| record.delivery.id.to_string();
    page.records.iter().map(id).collect()
}

#[tokio::test]
async fn wrong_numbers_in_flight_are_counted_by_the_leases() {
    for wrong in [
        &["HSET", "n", "acme\0main", "7"][..],
        &["HDEL", "n", "acme\0main"],
    ] {
        let queue = Queue::full(make().await).await;
        let _: usize = queue.ask(wrong);
        queue.recovers(Finding::InFlight).await;
    }
}

#[tokio::test]
async fn wrong_counters_are_counted_by_the_records() {
    let queue = Queue::full(make().await).await;
    let before = queue.store.backlog().await.unwrap();
    queue.damage(&["HINCRBY", "k", "o", "5"]);
    queue.damage(&["HINCRBY", "k", "s", "-2"]);
    queue.damage(&["HDEL", "k", "x"]);
    let report = queue.finds(Finding::Counter).await;
    assert_eq!(report.findings[&Finding::Counter].count, 3);
    assert_eq!(queue.store.backlog().await.unwrap(), before);
    queue.drains(OPEN).await;
}

#[tokio::test]
async fn indexes_follow_the_records() {
    let queue = Queue::full(make().await).await;
    queue.damage(&["DEL", "o:acme"]);
    queue.damage(&["DEL", "x:acme"]);
    queue.damage(&["SREM", "T", "acme"]);
    let finished = id_of("globex", "evt_0");
    queue.damage(&["ZADD", "x:globex", "1", "whdel_none", "2", &finished]);
    let waiting = id_of("globex", "evt_6");
    queue.damage(&["ZADD", "o:globex", "CH", "1", &waiting]);
    let report = queue.finds(Finding::Index).await;
    assert!(report.findings[&Finding::Index].count >= 10);
    for state in [DeliveryState::Failed, DeliveryState::DeadLetter] {
        let listed = listed(&queue.store, "acme", Some(state)).await;
        assert_eq!(listed.len(), 3, "{state}");
    }
    assert_eq!(queue.store.tenants().await.unwrap().len(), 2);
    queue.drains(OPEN).await;
}

#[tokio::test]
async fn finished_deliveries_come_back_under_retention() {
    let queue = Queue::full(make().await).await;
    queue.damage(&["DEL", "f:acme"]);
    let report = queue.finds(Finding::Unretained).await;
    assert_eq!(report.findings[&Finding::Unretained].count, 6);
    let retention = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    while queue.store.retain(&retention).await.unwrap() > 0 {}
    let backlog = queue.store.backlog().await.unwrap();
    assert_eq!((backlog.succeeded, backlog.dead_letter), (0, 0));
    queue.drains(OPEN).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_alone() {
    let queue = Queue::full(make().await).await;
    let key = format!("d:acme\0{}", id_of("acme", "evt_17"));
    queue.damage(&["SET", &key, "of a version to come"]);
    let report = queue.store.check(REPAIR).await.unwrap();
    assert_eq!(counts(&report)[&Finding::Unreadable], (1, 0));
    assert!(!report.findings.contains_key(&Finding::Stray));
    let kept: String = queue.ask(&["GET", &key]);
    assert_eq!(kept, "of a version to come");
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
    let mut queue = Queue::full(make().await).await;
    let lost = queue.held.remove(0).delivery;
    queue.damage(&["DEL", "e:acme\0evt_17"]);
    queue.damage(&["DEL", &format!("e:{}\0{}", lost.tenant_id, lost.event_id)]);
    let report = queue.finds(Finding::EventMissing).await;
    assert_eq!(report.findings[&Finding::EventMissing].count, 2);
    let acme = TenantId::new("acme").unwrap();
    let id = DeliveryId::new(id_of("acme", "evt_17")).unwrap();
    let kept = queue.store.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
    let reason = kept.attempts[0].error.as_deref().unwrap();
    assert!(reason.contains("the event is gone"), "{reason}");
    queue.drains(OPEN - 2).await;
}

#[tokio::test]
async fn a_tenants_lost_list_is_made_anew_in_its_order() {
    let queue = Queue::full(make().await).await;
    let before = listed(&queue.store, "acme", None).await;
    assert_eq!(before.len(), 18);
    queue.damage(&["DEL", "i:acme"]);
    // What comes afterwards begins a list of its own.
    put(&queue.store, "acme", "evt_late", &["main", "other"]).await;
    let found = queue.store.check(LOOK).await.unwrap();
    assert_eq!(
        counts(&found),
        BTreeMap::from([(Finding::Unlisted, (18, 0))])
    );
    let report = queue.finds(Finding::Unlisted).await;
    assert_eq!(report.findings[&Finding::Unlisted].count, 18);
    let after = listed(&queue.store, "acme", None).await;
    assert_eq!(after[2..], before);
}

#[tokio::test]
async fn a_hole_in_a_long_list_is_filled_while_more_is_enqueued_and_repaired() {
    let queue = Queue::empty(make().await);
    let store = &queue.store;
    put_many(store, 1600).await;
    let before = listed(store, "acme", None).await;
    let entries: Vec<(String, Vec<String>)> = queue.ask(&["XRANGE", "i:acme", "-", "+"]);
    for (id, _) in &entries[3..30] {
        queue.damage(&["XDEL", "i:acme", id]);
    }
    let more = async {
        for n in 0..200 {
            put(store, "acme", &format!("evt_more_{n}"), &["main"]).await;
        }
    };
    // Two at once: one of them may find the other at it.
    let repairs = async { tokio::join!(store.check(REPAIR), store.check(REPAIR)) };
    let ((one, other), ()) = tokio::join!(repairs, more);
    let mended = one.unwrap().left() == 0 || other.unwrap().left() == 0;
    assert!(mended || store.check(REPAIR).await.unwrap().left() == 0);
    assert!(store.check(LOOK).await.unwrap().is_sound());
    let after = listed(store, "acme", None).await;
    assert_eq!(after.len(), before.len() + 200);
    assert_eq!(after[200..], before);
}

#[tokio::test]
async fn a_wrong_number_of_finished_deliveries_is_counted_anew() {
    let queue = Queue::empty(make().await);
    let store = &queue.store;
    for n in 0..600 {
        put(store, "acme", &format!("evt_{n}"), &["main"]).await;
        for leased in take(store, 10).await {
            record(store, end(leased, 204)).await;
        }
    }
    for wrong in [
        &["HINCRBY", "m", "acme", "7"][..],
        &["HDEL", "m", "acme"],
        &["HSET", "m", "globex", "3"],
    ] {
        queue.damage(wrong);
        queue.finds(Finding::Counter).await;
    }
    // Retention by number goes by it.
    let retention = Retention {
        age: LONG,
        count: 100,
    };
    while store.retain(&retention).await.unwrap() > 0 {}
    assert_eq!(store.backlog().await.unwrap().succeeded, 100);
}
