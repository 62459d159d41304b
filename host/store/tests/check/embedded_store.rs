//! The embedded store, damaged by SQL.

use std::sync::Arc;

use tempfile::TempDir;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::{Finding, Store as _};

use crate::queue::Queue;
use crate::steps::{OPEN, PATIENCE, REPAIR};
use crate::verdict::{assert_sound, counts_what_fills_it};
use crate::work::{random_work, work_beside_repairs};

/// The folder of a store, and its file.
type Beneath = (TempDir, rusqlite::Connection);

fn make() -> (Beneath, EmbeddedStore) {
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
    ((folder, connection), store)
}

impl Queue<EmbeddedStore, Beneath> {
    /// Changes so many rows.
    fn damage(&self, statement: &str) -> usize {
        let changed = self.beneath.1.execute(statement, []).unwrap();
        assert!(changed > 0, "damage that does none: {statement}");
        changed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sound_after_random_work() {
    for seed in 0..4 {
        let (_beneath, store) = make();
        random_work(&store, seed).await;
    }
}

#[tokio::test]
async fn an_empty_queue_and_a_full_one_are_sound() {
    let (_beneath, store) = make();
    counts_what_fills_it(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_do_not_disturb_work() {
    let (_beneath, store) = make();
    work_beside_repairs(Arc::new(store)).await;
}

#[tokio::test]
async fn a_lane_that_counts_nothing_is_served_again() {
    let mut queue = Queue::full(make()).await;
    queue.release().await;
    assert_eq!(queue.damage("UPDATE lanes SET ready = 0"), 2);
    queue.recovers(Finding::Counter).await;
}

#[tokio::test]
async fn counts_follow_the_deliveries() {
    for counts in [
        "UPDATE lanes SET ready = 0, delayed = 9, succeeded = 1, dead_letter = 0",
        "UPDATE lanes SET ready = ready + 2",
    ] {
        let queue = Queue::full(make()).await;
        queue.damage(counts);
        queue.recovers(Finding::Counter).await;
    }
}

#[tokio::test]
async fn an_open_delivery_at_no_stage_is_put_back() {
    let queue = Queue::full(make()).await;
    queue.damage("UPDATE deliveries SET stage = 3 WHERE stage = 0 AND seq % 2 = 0");
    queue.recovers(Finding::Lost).await;
}

#[tokio::test]
async fn a_lease_in_the_file_is_put_back() {
    let queue = Queue::full(make()).await;
    queue.damage("UPDATE deliveries SET state = 1, stage = 2, back = 0 WHERE stage = 0");
    let report = queue.recovers(Finding::Lost).await;
    assert_eq!(report.findings[&Finding::Lost].count, 18);
}

#[tokio::test]
async fn a_finished_delivery_is_not_sent_again() {
    let queue = Queue::full(make()).await;
    queue.damage("UPDATE deliveries SET stage = 0 WHERE state = 3");
    queue.recovers(Finding::Stray).await;
}

#[tokio::test]
async fn in_a_sequence_it_is_the_turn_of_one() {
    for (damage, finding) in [
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
        let mut queue = Queue::in_order(make(), 5).await;
        queue.release().await;
        queue.damage(damage);
        queue.recovers_in_order(finding, 0..5).await;
    }
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
    let mut queue = Queue::in_order(make(), 3).await;
    queue.release().await;
    let gone = queue.damage("DELETE FROM events WHERE id IN ('evt_0', 'evt_1')");
    assert_eq!(gone, 2);
    queue.recovers_in_order(Finding::EventMissing, 2..3).await;
}

#[tokio::test]
async fn an_event_with_deliveries_is_kept() {
    let queue = Queue::full(make()).await;
    queue.damage("UPDATE events SET bare = 1 WHERE seq % 2 = 0");
    queue.recovers(Finding::Index).await;
}

#[tokio::test]
async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
    let queue = Queue::full(make()).await;
    // Not those of what is leased, which the file does not tell from what is due.
    let gone = queue.damage(
        "DELETE FROM events WHERE seq IN (SELECT event FROM deliveries WHERE stage = 0)
             AND id NOT IN ('evt_9', 'evt_10', 'evt_11')",
    );
    assert_eq!(gone, 12);
    queue.finds(Finding::EventMissing).await;
    assert_eq!(queue.store.backlog().await.unwrap().dead_letter, 6 + 12);
    queue.drains(OPEN - 12).await;
}

#[tokio::test]
async fn one_repair_runs_at_a_time() {
    let ((folder, _), store) = make();
    let lock = std::fs::File::create(folder.path().join("wasmhook.repair")).unwrap();
    lock.lock().unwrap();
    let error = store.check(REPAIR).await.unwrap_err();
    assert!(error.to_string().contains("another repair"), "{error}");
    assert_sound(&store).await;
    lock.unlock().unwrap();
    assert!(store.check(REPAIR).await.unwrap().is_sound());
}
