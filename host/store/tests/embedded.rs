//! The embedded store: the suite that every store passes, and what is special about a file.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Conclusion, DeliveryId, DeliveryState, TenantId};
use wasmhook_store::conformance::{dead, event, to};
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::{
    CheckRequest, Filter, Finding, LeaseRequest, Leased, Outcome, Recorded, Retention, Store,
    StoreError,
};

#[allow(clippy::unused_async, reason = "other stores start a server here")]
async fn make() -> (TempDir, Arc<dyn Store>) {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    (folder, Arc::new(store))
}

wasmhook_store::conformance_tests!(make);
wasmhook_store::turn_tests!(make);

fn host(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(EmbeddedConfig {
        path: path.to_owned(),
        host: true,
    })
}

fn request(max: usize, duration: Duration) -> LeaseRequest {
    LeaseRequest {
        max,
        duration,
        max_per_endpoint: 100,
    }
}

async fn push(store: &EmbeddedStore, id: &str) -> DeliveryId {
    let batch = to(&event("acme", id), &["main"]);
    let delivery = batch.deliveries[0].id.clone();
    store.enqueue(&[batch]).await.unwrap();
    delivery
}

#[tokio::test]
async fn a_second_host_is_refused_until_the_first_has_gone() {
    let folder = TempDir::new().unwrap();
    let first = host(folder.path()).unwrap();
    let error = host(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(first);
    host(folder.path()).unwrap();
}

#[tokio::test]
async fn a_tool_works_beside_a_host_and_wakes_it() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(host(folder.path()).unwrap());
    let id = push(&store, "evt_1").await;
    let long = Duration::from_mins(1);
    let leased = store.lease(&request(1, long)).await.unwrap().leased;
    let outcomes: Vec<_> = leased.into_iter().map(dead).collect();
    store.record(&outcomes).await.unwrap();
    let waiting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.wait_for_work(Duration::from_secs(30)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());

    let acme = TenantId::new("acme").unwrap();
    let tool = EmbeddedStore::open_for_tools(folder.path()).unwrap();
    let kept = tool.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
    tool.replay(&acme, &id).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("the host is woken")
        .unwrap()
        .unwrap();
    assert_eq!(
        store.lease(&request(1, long)).await.unwrap().leased.len(),
        1
    );
}

#[tokio::test]
async fn a_tool_makes_no_store() {
    let folder = TempDir::new().unwrap();
    let error = EmbeddedStore::open_for_tools(folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("there is no wasmhook.db in it; a host makes it when it first starts"),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_is_one_clear_sentence() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = file.join("data");
    assert_eq!(
        host(&path).unwrap_err().to_string(),
        format!(
            "cannot use {} for the embedded store: the folder cannot be made: a part of the path is a file, not a folder",
            path.display()
        )
    );
}

#[tokio::test]
async fn a_file_that_was_emptied_or_is_gone_from_beside_its_log_is_not_begun_anew() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (database, log) = (file("wasmhook.db"), file("wasmhook.db-wal"));
    let store = host(folder.path()).unwrap();
    push(&store, "evt_1").await;
    // As a host leaves them that is killed.
    let whole = std::fs::read(&database).unwrap();
    let logged = std::fs::read(&log).unwrap();
    drop(store);
    let crashed = |database_is: Option<&[u8]>| {
        std::fs::remove_file(&database).unwrap();
        if let Some(bytes) = database_is {
            std::fs::write(&database, bytes).unwrap();
        }
        std::fs::write(&log, &logged).unwrap();
    };
    crashed(Some(b""));
    for opened in [
        host(folder.path()),
        EmbeddedStore::open_for_tools(folder.path()),
    ] {
        let error = opened.unwrap_err().to_string();
        assert!(
            error.contains("wasmhook.db for the embedded store: it is empty"),
            "{error}"
        );
    }
    crashed(None);
    let error = host(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("wasmhook.db-wal for the embedded store: it holds"),
        "{error}"
    );
    assert_eq!(std::fs::read(&log).unwrap(), logged);

    std::fs::write(&database, &whole).unwrap();
    let store = host(folder.path()).unwrap();
    let leased = store.lease(&request(1, Duration::from_mins(1))).await;
    assert_eq!(leased.unwrap().leased.len(), 1);
    drop(store);
    std::fs::remove_file(&database).unwrap();
    // Of a start that was cut short.
    std::fs::write(file("wasmhook.db.new"), "").unwrap();
    let store = host(folder.path()).unwrap();
    let leased = store.lease(&request(1, Duration::from_mins(1))).await;
    assert!(leased.unwrap().leased.is_empty());
    assert!(!file("wasmhook.db.new").exists());
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_told_as_damaged_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    push(&store, "evt_1").await;
    drop(store);
    let database = folder.path().join("wasmhook.db");
    let whole = std::fs::read(&database).unwrap();
    std::fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    let words = "the database file is damaged; put a backup in its place";
    for opened in [
        host(folder.path()),
        EmbeddedStore::open_for_tools(folder.path()),
    ] {
        let error = opened.unwrap_err().to_string();
        assert!(error.ends_with(words), "{error}");
    }
}

/// Ways in which a row may make no sense, the number of its event and delivery being 2.
const DAMAGES: [&str; 6] = [
    "UPDATE events SET type = '' WHERE seq = 2",
    "UPDATE events SET occurred_at = 'in a version to come' WHERE seq = 2",
    "UPDATE deliveries SET attempt = 'many' WHERE seq = 2",
    "UPDATE deliveries SET attempt = -1 WHERE seq = 2",
    "UPDATE deliveries SET resolved = x'ff' WHERE seq = 2",
    "UPDATE attempts SET outcome = 'of a version to come' WHERE delivery = 2",
];

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_no_other() {
    for damage in DAMAGES {
        let folder = TempDir::new().unwrap();
        let store = host(folder.path()).unwrap();
        for n in 0..4 {
            push(&store, &format!("evt_{n}")).await;
        }
        let long = Duration::from_mins(1);
        // So that there are attempts, and nothing is at hand any more.
        let leased = store.lease(&request(9, long)).await.unwrap().leased;
        let outcomes: Vec<_> = leased.into_iter().map(overdue).collect();
        store.record(&outcomes).await.unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
        assert_eq!(connection.execute(damage, []).unwrap(), 1, "{damage}");
        let leased = store.lease(&request(9, long)).await.unwrap().leased;
        assert_eq!(leased.len(), 3, "{damage}");
        let outcomes: Vec<_> = leased.into_iter().map(dead).collect();
        assert_eq!(
            store.record(&outcomes).await.unwrap(),
            [Recorded::Written; 3]
        );
        push(&store, "evt_9").await;
        let leased = store.lease(&request(9, long)).await.unwrap().leased;
        assert_eq!(leased.len(), 1, "{damage}");
        let all = Filter {
            tenant: TenantId::new("acme").unwrap(),
            state: None,
            cursor: None,
            limit: 100,
        };
        let listed = store.list(&all).await.unwrap().records.len();
        assert!(
            (4..=5).contains(&listed),
            "{listed} of 5 are listed, {damage}"
        );
    }
}

#[tokio::test]
async fn a_batch_that_is_short_of_what_cannot_be_read_says_to_ask_again() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    for n in 0..4 {
        push(&store, &format!("evt_{n}")).await;
    }
    drop(store);
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    let damage = "UPDATE deliveries SET attempt = -1 WHERE seq = 2";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    let store = host(folder.path()).unwrap();
    let long = Duration::from_mins(1);
    let batch = store.lease(&request(2, long)).await.unwrap();
    assert_eq!(batch.leased.len(), 1);
    assert_eq!(batch.next_due, Some(Duration::ZERO));
    let batch = store.lease(&request(9, long)).await.unwrap();
    assert_eq!(batch.leased.len(), 2);
    assert_ne!(batch.next_due, Some(Duration::ZERO));
}

#[tokio::test]
async fn the_check_tells_of_what_cannot_be_read() {
    for damage in DAMAGES {
        let folder = TempDir::new().unwrap();
        let store = host(folder.path()).unwrap();
        let mut ids = Vec::new();
        for n in 0..4 {
            ids.push(push(&store, &format!("evt_{n}")).await);
        }
        let long = Duration::from_mins(1);
        let leased = store.lease(&request(9, long)).await.unwrap().leased;
        let outcomes: Vec<_> = leased.into_iter().map(overdue).collect();
        store.record(&outcomes).await.unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
        assert_eq!(connection.execute(damage, []).unwrap(), 1, "{damage}");
        let report = store
            .check(CheckRequest {
                repair: true,
                gentle: false,
            })
            .await
            .unwrap();
        assert_eq!(report.findings.len(), 1, "{damage}");
        let found = &report.findings[&Finding::Unreadable];
        assert_eq!((found.count, found.repaired), (1, 0), "{damage}");
        assert_eq!(found.examples[0].subject, ids[1].as_str(), "{damage}");
    }
}

#[tokio::test]
async fn retention_leaves_a_delivery_of_a_state_to_come_and_removes_the_others() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    for n in 0..4 {
        push(&store, &format!("evt_{n}")).await;
    }
    let leased = store.lease(&request(9, Duration::from_mins(1))).await;
    let outcomes: Vec<_> = leased.unwrap().leased.into_iter().map(dead).collect();
    store.record(&outcomes).await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    let damage = "UPDATE deliveries SET state = 9 WHERE seq = 2";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    let nothing = Retention {
        age: Duration::ZERO,
        count: 0,
    };
    let mut removed = 0;
    loop {
        match store.retain(&nothing).await.unwrap() {
            0 => break,
            more => removed += more,
        }
    }
    assert_eq!(removed, 3);
    let left: i64 = connection
        .query_row("SELECT seq FROM deliveries", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 2);
}

/// The outcome of a delivery that failed and is due again.
fn overdue(leased: Leased) -> Outcome {
    let now = jiff::Timestamp::now();
    let number = leased.delivery.attempt + 1;
    let mut attempt = Attempt::answered(number, now, Duration::from_millis(1), 503);
    attempt.next_at = Some(now);
    let next = Conclusion::Failed { next_at: now };
    let delivery = leased.delivery.concluded(&attempt, next, now);
    Outcome {
        leased,
        delivery,
        attempt,
    }
}

#[test]
fn a_newer_or_foreign_file_is_left_alone() {
    let folder = TempDir::new().unwrap();
    drop(host(folder.path()).unwrap());
    let database = folder.path().join("wasmhook.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = host(folder.path()).unwrap_err().to_string();
    assert!(error.contains("written by a newer wasmhook"), "{error}");
    std::fs::write(&database, "something else entirely, and not short").unwrap();
    let error = host(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("it is not an SQLite database"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn payloads_are_for_the_hosts_user_alone_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    push(&store, "e1").await;
    let mut files = Vec::new();
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if name.starts_with("wasmhook.db") {
            files.push((name, mode));
        }
    }
    files.sort();
    let closed = |name: &str| (name.to_owned(), 0o600);
    let expected = ["wasmhook.db", "wasmhook.db-shm", "wasmhook.db-wal"].map(closed);
    assert_eq!(files, expected);
}

#[tokio::test]
async fn reopening_keeps_everything_but_leases() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    push(&store, "evt_1").await;
    push(&store, "evt_2").await;
    let long = Duration::from_mins(1);
    let held = store.lease(&request(1, long)).await.unwrap().leased;
    assert_eq!(store.backlog().await.unwrap().leased, 1);
    drop(store);

    // They were the other host's, which is gone, so all is due at once and its outcomes are refused.
    let store = host(folder.path()).unwrap();
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.waiting, backlog.leased), (2, 0));
    let all = store.lease(&request(10, long)).await.unwrap();
    assert_eq!(all.leased.len(), 2);
    assert!(all.next_due.is_some());
    let late: Vec<_> = held.into_iter().map(dead).collect();
    assert_eq!(store.record(&late).await.unwrap(), [Recorded::LeaseLost]);
    let outcomes: Vec<_> = all.leased.into_iter().map(dead).collect();
    assert_eq!(
        store.record(&outcomes).await.unwrap(),
        [Recorded::Written; 2]
    );
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.leased, backlog.dead_letter), (0, 2));
}

/// A file as wasmhook wrote it before leases were in memory (version 3 of the tables), with one delivery that
/// is due and one that is leased.
fn make_older_file(folder: &Path) {
    let connection = rusqlite::Connection::open(folder.join("wasmhook.db")).unwrap();
    for migration in [
        include_str!("../src/embedded/schema.sql"),
        include_str!("../src/embedded/schema_2.sql"),
        include_str!("../src/embedded/kv.sql"),
        "INSERT INTO tenants VALUES (1, 'acme');
         INSERT INTO lanes (id, tenant, endpoint, ready, in_flight, open) VALUES (1, 1, 'main', 1, 1, 1);
         INSERT INTO events (seq, tenant, id, type, occurred_at, created_at, bare, payload) VALUES
             (1, 1, 'evt_1', 'invoice.paid', '2026-01-31T09:30:00Z', 7, 0, x'7b7d'),
             (2, 1, 'evt_2', 'invoice.paid', '2026-01-31T09:30:00Z', 7, 0, x'7b7d');
         INSERT INTO deliveries (seq, id, tenant, lane, event, state, stage, back, attempt,
                 replayed_at_attempt, next_at, created_at, updated_at, lease, lease_until) VALUES
             (1, 'whdel_1', 1, 1, 1, 1, 2, 2, 1, 0, 7, 7, 7, 99, 9223372036854775807),
             (2, 'whdel_2', 1, 1, 2, 0, 0, NULL, 0, 0, 7, 7, 7, NULL, NULL);
         PRAGMA user_version = 3;",
    ] {
        connection.execute_batch(migration).unwrap();
    }
}

#[tokio::test]
async fn leases_that_an_older_version_wrote_have_ended() {
    let folder = TempDir::new().unwrap();
    make_older_file(folder.path());
    let store = host(folder.path()).unwrap();
    let report = store.check(CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let long = Duration::from_mins(1);
    let leased = store.lease(&request(10, long)).await.unwrap().leased;
    let states: Vec<_> = leased.iter().map(|leased| leased.delivery.state).collect();
    assert_eq!(states, [DeliveryState::Failed, DeliveryState::Pending]);
    let outcomes: Vec<_> = leased.into_iter().map(dead).collect();
    assert_eq!(
        store.record(&outcomes).await.unwrap(),
        [Recorded::Written; 2]
    );
    let report = store.check(CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[tokio::test]
async fn a_delivery_that_an_older_version_wrote_is_known() {
    let folder = TempDir::new().unwrap();
    make_older_file(folder.path());
    let mut more = to(&event("acme", "evt_2"), &["main", "other"]);
    more.extends = true;
    let id = more.deliveries[0].id.clone();
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    let renamed = "UPDATE deliveries SET id = ?1 WHERE seq = 2";
    assert_eq!(connection.execute(renamed, [id.as_str()]).unwrap(), 1);
    drop(connection);

    let store = host(folder.path()).unwrap();
    assert_eq!(store.enqueue(&[more]).await.unwrap()[0].created, 1);
    let acme = TenantId::new("acme").unwrap();
    let found = store.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(found.delivery.id, id);
}

#[tokio::test]
async fn deliveries_are_found_by_their_ids_however_many_came_after() {
    // More than the events of one part of the index.
    const EVENTS: usize = 9_000;
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    let mut batch: Vec<_> = (0..EVENTS)
        .map(|n| to(&event("acme", &format!("evt_{n}")), &["main"]))
        .collect();
    batch[1].deliveries[0].id = DeliveryId::new("of_ones_own").unwrap();
    let ids = [0, 1, EVENTS - 1].map(|n| batch[n].deliveries[0].id.clone());
    store.enqueue(&batch).await.unwrap();
    let (acme, globex) = (
        TenantId::new("acme").unwrap(),
        TenantId::new("globex").unwrap(),
    );
    for id in &ids {
        let found = store.get(&acme, id).await.unwrap().unwrap();
        assert_eq!(found.delivery.id, *id);
        assert!(store.get(&globex, id).await.unwrap().is_none());
    }
    let unknown = DeliveryId::new("whdel_00000000000000000000000000000000").unwrap();
    assert!(store.get(&acme, &unknown).await.unwrap().is_none());
}

#[tokio::test]
async fn a_tool_leaves_the_file_of_an_older_host_as_it_is() {
    let folder = TempDir::new().unwrap();
    make_older_file(folder.path());
    let lock = std::fs::File::create(folder.path().join("wasmhook.lock")).unwrap();
    lock.lock().unwrap();
    let error = EmbeddedStore::open_for_tools(folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a host of an older wasmhook is using it"),
        "{error}"
    );
    lock.unlock().unwrap();
    let tool = EmbeddedStore::open_for_tools(folder.path()).unwrap();
    assert_eq!(tool.backlog().await.unwrap().waiting, 2);
}

#[tokio::test]
async fn what_is_leased_is_the_hosts_to_know() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    let id = push(&store, "evt_1").await;
    let long = Duration::from_mins(1);
    let held = store.lease(&request(1, long)).await.unwrap().leased;
    let acme = TenantId::new("acme").unwrap();
    let record = store.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(record.delivery.state, DeliveryState::Leased);

    let tool = EmbeddedStore::open_for_tools(folder.path()).unwrap();
    let record = tool.get(&acme, &id).await.unwrap().unwrap();
    assert_eq!(record.delivery.state, DeliveryState::Pending);
    let backlog = tool.backlog().await.unwrap();
    assert_eq!((backlog.waiting, backlog.leased), (1, 0));
    let error = tool.lease(&request(1, long)).await.unwrap_err();
    assert!(error.to_string().contains("only the host"), "{error}");
    // Its repair takes the delivery from nobody.
    let repair = CheckRequest {
        repair: true,
        gentle: false,
    };
    assert!(tool.check(repair).await.unwrap().is_sound());
    assert!(
        store
            .lease(&request(1, long))
            .await
            .unwrap()
            .leased
            .is_empty()
    );
    let outcomes: Vec<_> = held.into_iter().map(dead).collect();
    assert_eq!(store.record(&outcomes).await.unwrap(), [Recorded::Written]);
}

#[tokio::test]
async fn leasing_waits_for_no_writer() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    push(&store, "evt_1").await;
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let long = Duration::from_mins(1);
    let batch = tokio::time::timeout(Duration::from_secs(8), store.lease(&request(1, long)))
        .await
        .expect("the lease waits for nobody");
    assert_eq!(batch.unwrap().leased.len(), 1);
    connection.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_leaves_its_lease_in_force() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
    let long = Duration::from_mins(1);
    // Alone in its transaction, and beside others.
    for beside in [false, true] {
        push(&store, &format!("evt_{beside}")).await;
        let held = store.lease(&request(1, long)).await.unwrap().leased;
        let outcomes: Vec<_> = held.into_iter().map(dead).collect();
        connection
            .execute_batch(
                "CREATE TRIGGER refuse BEFORE INSERT ON attempts
                 BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
            )
            .unwrap();
        let error = if beside {
            let batch = [to(&event("acme", "evt_other"), &["other"])];
            let (refused, written) = tokio::join!(store.record(&outcomes), store.enqueue(&batch));
            assert_eq!(written.unwrap()[0].created, 1);
            refused.unwrap_err()
        } else {
            store.record(&outcomes).await.unwrap_err()
        };
        assert!(error.to_string().contains("refused by the test"), "{error}");
        connection.execute_batch("DROP TRIGGER refuse").unwrap();
        assert_eq!(store.backlog().await.unwrap().leased, 1);
        assert_eq!(store.record(&outcomes).await.unwrap(), [Recorded::Written]);
        assert_eq!(
            store.record(&outcomes).await.unwrap(),
            [Recorded::LeaseLost]
        );
    }
    let report = store.check(CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[tokio::test]
async fn a_failing_task_undoes_no_other() {
    let folder = TempDir::new().unwrap();
    let store = host(folder.path()).unwrap();
    let acme = TenantId::new("acme").unwrap();
    let missing = DeliveryId::new("none").unwrap();
    let batch = [to(&event("acme", "evt_1"), &["main"])];
    let (refused, written, refused_too) = tokio::join!(
        store.replay(&acme, &missing),
        store.enqueue(&batch),
        store.replay(&acme, &missing),
    );
    assert!(matches!(refused, Err(StoreError::NotFound)));
    assert!(matches!(refused_too, Err(StoreError::NotFound)));
    assert_eq!(written.unwrap()[0].created, 1);
    assert_eq!(store.backlog().await.unwrap().waiting, 1);
}

/// The child of [`what_was_acknowledged_survives_a_kill`]; by itself it does nothing.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("WASMHOOK_TEST_KILLED") else {
        return;
    };
    let store = host(Path::new(&path)).unwrap();
    for n in 0.. {
        push(&store, &format!("evt_{n}")).await;
        println!("written {n}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env("WASMHOOK_TEST_KILLED", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some((_, n)) = line.unwrap().split_once("written ") {
            last = n.parse::<u64>().unwrap();
        }
        if last >= 50 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let store = host(folder.path()).unwrap();
    assert!(store.backlog().await.unwrap().waiting > last);
}
