//! Counts, indexes and lists that do not agree with the records, and records that are damaged.

use std::collections::BTreeMap;
use std::time::Duration;

use wasmhook_core::{DeliveryId, DeliveryState, TenantId};
use wasmhook_store::{Finding, Retention, Store as _};

use super::{SHARD, by_hand, id_of, make};
use crate::steps::{REPAIR, fill};
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

#[tokio::test]
async fn a_tenants_lost_list_is_told() {
    let (_server, store, mut connection) = make().await;
    let held = fill(&store).await;
    by_hand(&mut connection, "DEL", "i:acme", &[]).await;
    let report = store.check(REPAIR).await.unwrap();
    assert_eq!(
        counts(&report),
        BTreeMap::from([(Finding::Unlisted, (18, 0))])
    );
    assert_eq!(report.left(), 18);
    drop(held);
}
