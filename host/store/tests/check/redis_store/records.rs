//! Counts, indexes and lists that do not agree with the records, and records that are damaged.

use std::collections::BTreeMap;
use std::time::Duration;

use wasmhook_core::{DeliveryId, DeliveryState, TenantId};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::redis::RedisStore;
use wasmhook_store::{Filter, Finding, Retention, Store as _};

use super::{SHARD, by_hand, id_of, make};
use crate::steps::{LONG, LOOK, REPAIR, end, fill, put, record, take};
use crate::verdict::{counts, drains, finds_and_mends};

#[tokio::test]
async fn wrong_numbers_in_flight_are_counted_by_the_leases() {
    for (name, more) in [
        ("HSET", &["acme\0main", "7"][..]),
        ("HDEL", &["acme\0main"]),
    ] {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let mut command = redis::cmd(name);
        command.arg(format!("{SHARD}n")).arg(more);
        command.exec_async(&mut connection).await.unwrap();
        finds_and_mends(&store, Finding::InFlight).await;
        drains(&store, held, 18).await;
    }
}

#[tokio::test]
async fn wrong_counters_are_counted_by_the_records() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let before = store.backlog().await.unwrap();
    by_hand(&mut connection, "HINCRBY", "k", &["o", "5"]).await;
    by_hand(&mut connection, "HINCRBY", "k", &["s", "-2"]).await;
    by_hand(&mut connection, "HDEL", "k", &["x"]).await;
    let report = finds_and_mends(&store, Finding::Counter).await;
    assert_eq!(report.findings[&Finding::Counter].count, 3);
    assert_eq!(store.backlog().await.unwrap(), before);
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn indexes_follow_the_records() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    by_hand(&mut connection, "DEL", "o:acme", &[]).await;
    by_hand(&mut connection, "DEL", "x:acme", &[]).await;
    by_hand(&mut connection, "SREM", "T", &["acme"]).await;
    let finished = id_of("globex", "evt_0");
    by_hand(
        &mut connection,
        "ZADD",
        "x:globex",
        &["1", "whdel_none", "2", &finished],
    )
    .await;
    let waiting = id_of("globex", "evt_6");
    by_hand(&mut connection, "ZADD", "o:globex", &["CH", "1", &waiting]).await;
    let report = finds_and_mends(&store, Finding::Index).await;
    assert!(report.findings[&Finding::Index].count >= 10);
    for state in [DeliveryState::Failed, DeliveryState::DeadLetter] {
        let page = store
            .list(&wasmhook_store::Filter {
                tenant: TenantId::new("acme").unwrap(),
                state: Some(state),
                cursor: None,
                limit: 10,
            })
            .await
            .unwrap();
        assert_eq!(page.records.len(), 3, "{state}");
    }
    assert_eq!(store.tenants().await.unwrap().len(), 2);
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn finished_deliveries_come_back_under_retention() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    by_hand(&mut connection, "DEL", "f:acme", &[]).await;
    let report = finds_and_mends(&store, Finding::Unretained).await;
    assert_eq!(report.findings[&Finding::Unretained].count, 6);
    let retention = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    while store.retain(&retention).await.unwrap() > 0 {}
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.succeeded, backlog.dead_letter), (0, 0));
    drains(&store, held, 18).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_alone() {
    let (_server, store, mut connection) = make().await;
    fill(&store).await;
    let key = format!("d:acme\0{}", id_of("acme", "evt_17"));
    by_hand(&mut connection, "SET", &key, &["of a version to come"]).await;
    let report = store.check(REPAIR).await.unwrap();
    assert_eq!(counts(&report)[&Finding::Unreadable], (1, 0));
    assert!(!report.findings.contains_key(&Finding::Stray));
    let kept: String = redis::cmd("GET")
        .arg(format!("{SHARD}{key}"))
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, "of a version to come");
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
    let (_server, store, mut connection) = make().await;
    let mut held = fill(&store).await;
    let lost = held.remove(0).delivery;
    for (tenant, event) in [
        ("acme", "evt_17"),
        (lost.tenant_id.as_str(), lost.event_id.as_str()),
    ] {
        let key = format!("e:{tenant}\0{event}");
        by_hand(&mut connection, "DEL", &key, &[]).await;
    }
    let report = finds_and_mends(&store, Finding::EventMissing).await;
    assert_eq!(report.findings[&Finding::EventMissing].count, 2);
    let acme = TenantId::new("acme").unwrap();
    let id = DeliveryId::new(id_of("acme", "evt_17")).unwrap();
    let kept = store.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
    let reason = kept.attempts[0].error.as_deref().unwrap();
    assert!(reason.contains("the event is gone"), "{reason}");
    drains(&store, held, 16).await;
}

async fn listed(store: &RedisStore, tenant: &str) -> Vec<String> {
    let filter = Filter {
        tenant: TenantId::new(tenant).unwrap(),
        state: None,
        cursor: None,
        limit: 10_000,
    };
    let page = store.list(&filter).await.unwrap();
    let id = |record: &wasmhook_store::Record| record.delivery.id.to_string();
    page.records.iter().map(id).collect()
}

#[tokio::test]
async fn a_tenants_lost_list_is_made_anew_in_its_order() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    let before = listed(&store, "acme").await;
    assert_eq!(before.len(), 18);
    by_hand(&mut connection, "DEL", "i:acme", &[]).await;
    // What comes afterwards begins a list of its own.
    put(&store, "acme", "evt_late", &["main", "other"]).await;
    let found = store.check(LOOK).await.unwrap();
    assert_eq!(
        counts(&found),
        BTreeMap::from([(Finding::Unlisted, (18, 0))])
    );
    let report = finds_and_mends(&store, Finding::Unlisted).await;
    assert_eq!(report.findings[&Finding::Unlisted].count, 18);
    let after = listed(&store, "acme").await;
    assert_eq!(after[2..], before);
    drop(held);
}

#[tokio::test]
async fn a_hole_in_a_long_list_is_filled_while_more_is_enqueued_and_repaired() {
    let (_server, store, mut connection) = make().await;
    for n in 0..40 {
        let batch: Vec<_> = (0..40)
            .map(|m| to(&event("acme", &format!("evt_{n}_{m}")), &["main"]))
            .collect();
        store.enqueue(&batch).await.unwrap();
    }
    let before = listed(&store, "acme").await;
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(format!("{SHARD}i:acme"))
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .unwrap();
    for (id, _) in &entries[3..30] {
        by_hand(&mut connection, "XDEL", "i:acme", &[id]).await;
    }
    let more = async {
        for n in 0..200 {
            put(&store, "acme", &format!("evt_more_{n}"), &["main"]).await;
        }
    };
    // Two at once: one of them may find the other at it.
    let repairs = async { tokio::join!(store.check(REPAIR), store.check(REPAIR)) };
    let ((one, other), ()) = tokio::join!(repairs, more);
    let mended = one.unwrap().left() == 0 || other.unwrap().left() == 0;
    assert!(mended || store.check(REPAIR).await.unwrap().left() == 0);
    assert!(store.check(LOOK).await.unwrap().is_sound());
    let after = listed(&store, "acme").await;
    assert_eq!(after.len(), before.len() + 200);
    assert_eq!(after[200..], before);
}

#[tokio::test]
async fn a_wrong_number_of_finished_deliveries_is_counted_anew() {
    let (_server, store, mut connection) = make().await;
    for n in 0..600 {
        put(&store, "acme", &format!("evt_{n}"), &["main"]).await;
        for leased in take(&store, 10).await {
            record(&store, end(leased, 204)).await;
        }
    }
    for (command, words) in [
        ("HINCRBY", &["acme", "7"][..]),
        ("HDEL", &["acme"]),
        ("HSET", &["globex", "3"]),
    ] {
        by_hand(&mut connection, command, "m", words).await;
        finds_and_mends(&store, Finding::Counter).await;
    }
    // Retention by number goes by it.
    let retention = Retention {
        age: LONG,
        count: 100,
    };
    while store.retain(&retention).await.unwrap() > 0 {}
    assert_eq!(store.backlog().await.unwrap().succeeded, 100);
}
