//! The watch over real folders. Waits are bounded, never timed.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use wasmhook_tenants::FolderWatch;

/// Far more than anything here takes.
const BOUND: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_hours(1);

async fn noticed(watch: &mut FolderWatch) {
    tokio::time::timeout(BOUND, watch.changed())
        .await
        .expect("no change was noticed");
}

#[tokio::test]
async fn files_made_replaced_and_deleted_are_noticed() {
    let root = TempDir::new().unwrap();
    let mut watch =
        FolderWatch::start(&[root.path().to_owned()], Duration::from_millis(20), NEVER).unwrap();
    // The watch begins in its own thread; until then changes go unseen, so they are repeated.
    let file = root.path().join("a");
    let first = async {
        loop {
            fs::write(&file, "1").unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = noticed(&mut watch) => {}
        () = first => {}
    }
    fs::write(root.path().join("b"), "2").unwrap();
    fs::rename(root.path().join("b"), &file).unwrap();
    noticed(&mut watch).await;
    fs::create_dir_all(root.path().join("deep/er")).unwrap();
    noticed(&mut watch).await;
    fs::remove_file(&file).unwrap();
    noticed(&mut watch).await;
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_link_leads_to_elsewhere_is_not_watched() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    let mut watch =
        FolderWatch::start(&[root.path().to_owned()], Duration::from_millis(20), NEVER).unwrap();
    let own = async {
        loop {
            fs::write(root.path().join("a"), "1").unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = noticed(&mut watch) => {}
        () = own => {}
    }
    let while_it_is_quiet = Duration::from_millis(500);
    while tokio::time::timeout(while_it_is_quiet, watch.changed())
        .await
        .is_ok()
    {}
    fs::write(outside.path().join("b"), "2").unwrap();
    let heard = tokio::time::timeout(while_it_is_quiet, watch.changed()).await;
    assert!(heard.is_err(), "a change elsewhere was noticed");
    fs::write(root.path().join("a"), "3").unwrap();
    noticed(&mut watch).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_may_not_be_opened_leaves_all_others_watched() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = TempDir::new().unwrap();
    let tenants: Vec<_> = (0..20).map(|n| root.path().join(format!("t{n}"))).collect();
    for tenant in &tenants {
        fs::create_dir_all(tenant.join("plugins")).unwrap();
    }
    let closed = tenants[9].join("plugins");
    let mode = |mode| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    if fs::read_dir(&closed).is_ok() {
        // Nothing is closed to the superuser; `reach` has tests of its own.
        return;
    }
    let mut watch =
        FolderWatch::start(&[root.path().to_owned()], Duration::from_millis(20), NEVER).unwrap();
    let while_it_is_quiet = Duration::from_millis(300);
    for (n, tenant) in tenants.iter().enumerate() {
        let file = tenant.join(if n == 9 { "a" } else { "plugins/a" });
        let written = async {
            loop {
                fs::write(&file, "1").unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = noticed(&mut watch) => {}
            () = written => {}
        }
        while tokio::time::timeout(while_it_is_quiet, watch.changed())
            .await
            .is_ok()
        {}
    }
    mode(0o700);
    noticed(&mut watch).await;
    fs::write(closed.join("a"), "1").unwrap();
    noticed(&mut watch).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_opened_after_it_was_made_is_watched() {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let root = TempDir::new().unwrap();
    let mut watch =
        FolderWatch::start(&[root.path().to_owned()], Duration::from_millis(20), NEVER).unwrap();
    let started = async {
        loop {
            fs::write(root.path().join("a"), "1").unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = noticed(&mut watch) => {}
        () = started => {}
    }
    let quiet = async |watch: &mut FolderWatch| {
        let while_it_is_quiet = Duration::from_millis(300);
        while tokio::time::timeout(while_it_is_quiet, watch.changed())
            .await
            .is_ok()
        {}
    };
    quiet(&mut watch).await;
    let tenant = root.path().join("tenant");
    // As one is until its owner is set. The superuser may open it at once.
    fs::DirBuilder::new().mode(0o000).create(&tenant).unwrap();
    quiet(&mut watch).await;
    fs::set_permissions(&tenant, fs::Permissions::from_mode(0o700)).unwrap();
    quiet(&mut watch).await;
    fs::write(tenant.join("a"), "1").unwrap();
    noticed(&mut watch).await;
}

#[tokio::test]
async fn the_rescan_comes_without_any_notification() {
    let root = TempDir::new().unwrap();
    let paths = [root.path().join("not made yet")];
    let rescan = Duration::from_millis(20);
    let mut watch = FolderWatch::start(&paths, FolderWatch::DEBOUNCE, rescan).unwrap();
    noticed(&mut watch).await;
    noticed(&mut watch).await;
}

#[tokio::test]
async fn a_folder_made_again_is_watched_again() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("tenants");
    fs::create_dir(&folder).unwrap();
    let short = Duration::from_millis(20);
    let mut watch = FolderWatch::start(
        std::slice::from_ref(&folder),
        short,
        Duration::from_millis(100),
    )
    .unwrap();
    for _ in 0..3 {
        fs::remove_dir(&folder).unwrap();
        noticed(&mut watch).await;
        fs::create_dir(&folder).unwrap();
        noticed(&mut watch).await;
    }
}

#[tokio::test]
async fn dropping_the_watch_stops_it() {
    let root = TempDir::new().unwrap();
    let watch =
        FolderWatch::start(&[root.path().to_owned()], FolderWatch::DEBOUNCE, NEVER).unwrap();
    let mut changes = watch.subscribe();
    drop(watch);
    let ended = async { while changes.changed().await.is_ok() {} };
    tokio::time::timeout(BOUND, ended)
        .await
        .expect("the watch went on");
}
