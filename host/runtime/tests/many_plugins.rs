//! A host with more plugins than it has room for instances, or may have files open.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{REUSED, World, body, config, guest, variant};
use wasmhook_runtime::{PluginHost, ServingState};

/// Longer than an instance is busy after a call, and than a change of a file is recent.
const A_WHILE: Duration = Duration::from_millis(3_100);

/// Set a manifest that lets the guest count its calls, and its own instance's.
const COUNT: &str = "reuse = { calls = 1000, seconds = 3600 }";

#[tokio::test]
async fn an_instance_that_nobody_calls_gives_its_place_to_one_that_is_called() {
    let world = World::with(|config| {
        config.reuse = REUSED;
        config.max_idle_instances = 1;
    });
    world.put_hostile("early", "count", COUNT);
    world.load().await;
    let early = world.transform("early");
    assert_eq!(body(&early, "{}").await, "1");
    assert_eq!(body(&early, "{}").await, "2", "it has the only place");

    world.put_hostile("late", "count", COUNT);
    world.load().await;
    let late = world.transform("late");
    assert_eq!(
        body(&early, "{}").await,
        "3",
        "one that was only started took the place of one that served"
    );
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(body(&late, "{}").await, "1");
    assert_eq!(
        body(&late, "{}").await,
        "2",
        "an instance that nobody calls keeps its place"
    );
    assert_eq!(body(&early, "{}").await, "1", "it starts anew");
}

#[tokio::test]
async fn what_changes_after_quiet_looks_is_found() {
    let world = World::new();
    let components: Vec<Vec<u8>> = (0..3).map(|n| variant(guest("redact"), n)).collect();
    world.put("acme", "10-redact.wasm", &components[0]);
    world.put("other", "10-redact.wasm", &components[0]);
    world.load().await;
    tokio::time::sleep(A_WHILE).await;
    for _ in 0..40 {
        let report = world.host.rescan().await;
        assert_eq!((report.loaded, report.unloaded), (0, 0));
    }
    let digest = || world.status("acme", "10-redact").digest.unwrap();
    let first = digest();

    // In its place, which changes nothing of the folder.
    fs::write(world.file("acme", "10-redact.wasm"), &components[1]).unwrap();
    world.load().await;
    let second = digest();
    assert_ne!(second, first);
    tokio::time::sleep(A_WHILE).await;
    world.load().await;

    // By another file, with others beside it.
    world.put("acme", "10-redact.wasm", &components[2]);
    world.put("acme", "20-more.wasm", &components[0]);
    world.put("late", "10-redact.wasm", &components[0]);
    world.load().await;
    assert_ne!(digest(), second);
    assert_eq!(world.host.status().len(), 4);
    tokio::time::sleep(A_WHILE).await;
    world.load().await;

    world.remove("acme", "20-more.wasm");
    fs::remove_dir_all(world.file("other", "").parent().unwrap()).unwrap();
    let report = world.host.rescan().await;
    assert_eq!(report.unloaded, 2);
}

/// The only test that lowers a limit of the whole process, so the others can run beside it only as long
/// as they open few files: it takes away what is above those that are open and a dozen more.
#[test]
fn running_out_of_open_files_damages_nothing_and_passes() {
    const PLUGINS: u8 = 60;
    // In a process of its own: see above.
    if std::env::var_os("WASMHOOK_TEST_ALONE").is_none() {
        let itself = std::env::current_exe().unwrap();
        let output = std::process::Command::new(itself)
            .args([
                "--exact",
                "running_out_of_open_files_damages_nothing_and_passes",
            ])
            .env("WASMHOOK_TEST_ALONE", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path().join("cache");
        let world = World::with(|config| config.cache_dir = Some(cache.clone()));
        for number in 0..PLUGINS {
            let tenant = format!("tenant-{number}");
            world.put(&tenant, "10-redact.wasm", variant(guest("redact"), number));
        }
        world.load().await;
        let compiled = entries(&cache);
        assert_eq!(
            compiled.len(),
            2 * usize::from(PLUGINS),
            "the code of each, and what is known of its functions"
        );

        // What the first host has open stays open; the second may open as many again as half of it needs.
        let before = getrlimit(Resource::Nofile);
        let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let room = u64::from(PLUGINS) / 2;
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(open + room),
                ..before
            },
        )
        .unwrap();
        let mut settings = config(world.folder.path());
        settings.cache_dir = Some(cache.clone());
        let host = PluginHost::new(settings).unwrap();
        host.rescan().await;
        host.settled().await;
        let serving = |host: &PluginHost| {
            let all = host.status();
            let serving = all.iter().filter(|p| p.state == ServingState::Serving);
            serving.count()
        };
        let first = serving(&host);
        assert!(
            first > 0 && first < usize::from(PLUGINS),
            "{first} of {PLUGINS} serve with room for {room} files"
        );
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(
            entries(&cache),
            compiled,
            "what could not be opened was removed"
        );
        let report = host.rescan().await;
        host.settled().await;
        assert_eq!(report.compiling, 0);
        assert_eq!(serving(&host), usize::from(PLUGINS));
    });
}

fn entries(cache: &Path) -> BTreeSet<(std::ffi::OsString, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(cache).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().ino()))
        .collect()
}
