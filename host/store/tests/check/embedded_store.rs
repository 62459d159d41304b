//! The embedded store, damaged by SQL.

use std::sync::Arc;

use tempfile::TempDir;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::{CheckReport, Finding, Store as _};

use crate::in_order::{drains_in_order, put_in_order};
use crate::steps::{LOOK, PATIENCE, REPAIR, fill};
use crate::verdict::{assert_sound, drains, finds_and_mends};
use crate::work::{random_work, work_beside_repairs};

fn make() -> (TempDir, EmbeddedStore, rusqlite::Connection) {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedStore::open(EmbeddedConfig {
        path: folder.path().to_owned(),
        host: true,
    })
    .unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
        .pragma_update(None, "foreign_keys", false)
        .unwrap();
    (folder, store, connection)
}

async fn damaged(statement: &str, expected: Finding) -> CheckReport {
    let (_folder, store, connection) = make();
    let held = fill(&store).await;
    // Damage that does none proves nothing.
    assert!(
        connection.execute(statement, []).unwrap() > 0,
        "{statement}"
    );
    let report = finds_and_mends(&store, expected).await;
    drains(&store, held, 18).await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sound_after_random_work() {
    for seed in 0..4 {
        let (_folder, store, _) = make();
        random_work(&store, seed).await;
    }
}

#[tokio::test]
async fn an_empty_queue_and_a_full_one_are_sound() {
    let (_folder, store, _) = make();
    assert_sound(&store).await;
    let held = fill(&store).await;
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let looked = report.looked;
    assert_eq!((looked.deliveries, looked.open), (36, 24));
    assert_eq!((looked.due, looked.waiting, looked.leased), (12, 6, 6));
    drains(&store, held, 18).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_do_not_disturb_work() {
    let (_folder, store, _) = make();
    work_beside_repairs(Arc::new(store)).await;
}

#[tokio::test]
async fn a_lane_that_counts_nothing_is_served_again() {
    let (_folder, store, connection) = make();
    let held = fill(&store).await;
    store.release(&held).await.unwrap();
    let none = "UPDATE lanes SET ready = 0";
    assert_eq!(connection.execute(none, []).unwrap(), 2);
    finds_and_mends(&store, Finding::Counter).await;
    drains(&store, Vec::new(), 18).await;
}

#[tokio::test]
async fn counts_follow_the_deliveries() {
    let counters = "UPDATE lanes SET ready = 0, delayed = 9, succeeded = 1, dead_letter = 0";
    damaged(counters, Finding::Counter).await;
    let more = "UPDATE lanes SET ready = ready + 2";
    damaged(more, Finding::Counter).await;
}

#[tokio::test]
async fn an_open_delivery_at_no_stage_is_put_back() {
    let finished = "UPDATE deliveries SET stage = 3 WHERE stage = 0 AND seq % 2 = 0";
    damaged(finished, Finding::Lost).await;
}

#[tokio::test]
async fn a_lease_in_the_file_is_put_back() {
    let leases = "UPDATE deliveries SET state = 1, stage = 2, back = 0 WHERE stage = 0";
    let report = damaged(leases, Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 18);
}

#[tokio::test]
async fn a_finished_delivery_is_not_sent_again() {
    let stray = "UPDATE deliveries SET stage = 0 WHERE state = 3";
    damaged(stray, Finding::Stray).await;
}

#[tokio::test]
async fn in_a_sequence_it_is_the_turn_of_one() {
    for (statement, finding) in [
        // Nobody's, or that of all.
        (
            "UPDATE deliveries SET stage = 4 WHERE stage = 0",
            Finding::Sequence,
        ),
        (
            "UPDATE deliveries SET stage = 0 WHERE stage = 4",
            Finding::Sequence,
        ),
        // Finished by its stage, and not by its state.
        (
            "UPDATE deliveries SET stage = 3 WHERE seq IN (1, 3)",
            Finding::Lost,
        ),
        (
            "UPDATE deliveries SET stage = 5 WHERE seq IN (2, 3)",
            Finding::Lost,
        ),
    ] {
        let (_folder, store, connection) = make();
        let held = put_in_order(&store, 5).await;
        store.release(&held).await.unwrap();
        assert!(connection.execute(statement, []).unwrap() > 0);
        finds_and_mends(&store, finding).await;
        drains_in_order(&store, Vec::new(), 0..5).await;
    }
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
    let (_folder, store, connection) = make();
    let held = put_in_order(&store, 3).await;
    store.release(&held).await.unwrap();
    let gone = "DELETE FROM events WHERE id IN ('evt_0', 'evt_1')";
    assert_eq!(connection.execute(gone, []).unwrap(), 2);
    finds_and_mends(&store, Finding::EventMissing).await;
    drains_in_order(&store, Vec::new(), 2..3).await;
}

#[tokio::test]
async fn an_event_with_deliveries_is_kept() {
    let bare = "UPDATE events SET bare = 1 WHERE seq % 2 = 0";
    damaged(bare, Finding::Index).await;
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
    let (_folder, store, connection) = make();
    let held = fill(&store).await;
    // Not those of what is leased, which the file does not tell from what is due.
    let gone = "DELETE FROM events WHERE seq IN (SELECT event FROM deliveries WHERE stage = 0)
                    AND id NOT IN ('evt_9', 'evt_10', 'evt_11')";
    assert_eq!(connection.execute(gone, []).unwrap(), 12);
    finds_and_mends(&store, Finding::EventMissing).await;
    assert_eq!(store.backlog().await.unwrap().dead_letter, 6 + 12);
    drains(&store, held, 6).await;
}

#[tokio::test]
async fn one_repair_runs_at_a_time() {
    let (folder, store, _) = make();
    let lock = std::fs::File::create(folder.path().join("wasmhook.repair")).unwrap();
    lock.lock().unwrap();
    let error = store.check(REPAIR).await.unwrap_err();
    assert!(error.to_string().contains("another repair"), "{error}");
    assert_sound(&store).await;
    lock.unlock().unwrap();
    assert!(store.check(REPAIR).await.unwrap().is_sound());
}
