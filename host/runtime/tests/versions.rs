//! New versions on probation, the way back to former ones, and what somebody says about a version.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::fs;
use std::sync::Arc;

use support::{World, body, event, guest, transform, variant};
use wasmhook_runtime::{
    Digest, Plugin, PluginHost, PluginHostConfig, PluginStatus, Rollback, ServingState,
    VersionArchive, VersionState,
};

const NAME: &str = "10-plugin";

/// A world that keeps its versions in `versions`, and rolls back after two events with faults.
fn world() -> World {
    World::with(keeps_versions)
}

fn keeps_versions(config: &mut PluginHostConfig) {
    config.versions_dir = Some(config.tenants_dir.with_file_name("versions"));
    config.cache_dir = Some(config.tenants_dir.with_file_name("cache"));
    config.rollback = Rollback {
        calls: 20,
        faults: 2,
    };
}

/// Another host on the same folders, as after a restart.
fn restart(world: &mut World) {
    let mut config = support::config(world.folder.path());
    keeps_versions(&mut config);
    world.host = Arc::new(PluginHost::new(config).unwrap());
}

fn behave(world: &World, behaviour: &str) {
    let manifest = format!("[config]\nbehaviour = \"{behaviour}\"\nfields = \"card\"\n");
    world.put("acme", &format!("{NAME}.toml"), manifest);
}

async fn drop_version(world: &World, component: &[u8]) -> Digest {
    world.put("acme", &format!("{NAME}.wasm"), component);
    world.load().await;
    Digest::of(component)
}

/// Call for so many different events; says how many calls failed.
async fn call(plugin: &Plugin, events: std::ops::Range<u32>) -> usize {
    let mut failed = 0;
    for number in events {
        let id = format!("evt_{number}");
        let view = wasmhook_runtime::EventView {
            id: &id,
            ..event("{}")
        };
        let called = plugin.transform(&view, &support::ENDPOINT).await;
        failed += usize::from(called.is_err());
    }
    failed
}

fn status(world: &World) -> PluginStatus {
    world.status("acme", NAME)
}

fn history(world: &World) -> Vec<(Digest, VersionState, bool)> {
    let archive = VersionArchive::look(&world.folder.path().join("versions"));
    let versions = archive.versions("acme", NAME).unwrap().into_iter();
    versions
        .map(|(record, is_kept)| (record.digest, record.state, is_kept))
        .collect()
}

#[tokio::test]
async fn a_new_version_that_traps_is_rolled_back_and_stays_away_until_its_files_change() {
    let mut world = world();
    behave(&world, "panic");
    let good = drop_version(&world, &guest("redact")).await;
    assert_eq!(call(&world.transform("acme"), 0..3).await, 0);

    let bad = drop_version(&world, &guest("hostile")).await;
    assert_eq!(status(&world).digest, Some(bad), "it serves at once");
    assert_eq!(call(&world.transform("acme"), 0..2).await, 2);
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(good))
    );
    assert_eq!(
        told.refused.as_deref(),
        Some(
            "it was rolled back: it failed for 2 of the events of its first 2 calls, the last time \
             because it trapped: unreachable code, such as a panic or an abort"
        )
    );
    assert_eq!(
        body(&world.transform("acme"), r#"{"card":"1"}"#).await,
        r#"{"card":"[redacted]","schema_version":"1"}"#
    );
    let remembered = [
        (bad, VersionState::RolledBack, true),
        (good, VersionState::Serving, true),
    ];
    assert_eq!(history(&world), remembered);

    // Neither another look, nor a copy of the same, nor a restart brings it back.
    world.load().await;
    drop_version(&world, &guest("hostile")).await;
    assert_eq!(status(&world).digest, Some(good));
    restart(&mut world);
    world.load().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(good))
    );
    assert!(
        told.refused
            .unwrap()
            .starts_with("it was rolled back: it failed for 2")
    );
    assert!(world.tenant("acme").unready.is_empty());
    assert_eq!(history(&world), remembered);

    // With another manifest it may try again.
    behave(&world, "echo");
    world.load().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest, told.refused),
        (ServingState::Serving, Some(bad), None)
    );
    assert_eq!(call(&world.transform("acme"), 0..25).await, 0);
    world.host.settled().await;
    let remembered = [
        (good, VersionState::Replaced, true),
        (bad, VersionState::Serving, true),
    ];
    assert_eq!(history(&world), remembered);
}

#[tokio::test]
async fn what_a_guest_says_of_its_own_accord_rolls_nothing_back() {
    let world = world();
    behave(&world, "fail");
    drop_version(&world, &guest("redact")).await;
    let new = drop_version(&world, &guest("hostile")).await;
    assert_eq!(call(&world.transform("acme"), 0..10).await, 10);
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(new))
    );
    assert_eq!(told.calls.errors, 10);
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_counts_like_a_trap() {
    let world = world();
    behave(&world, "host-header");
    let good = drop_version(&world, &guest("redact")).await;
    drop_version(&world, &guest("hostile")).await;
    let plugin = world.transform("acme");
    for id in ["evt_1", "evt_2"] {
        transform(&plugin, "{}").await.unwrap();
        plugin.refuse_answer(id, "unsafe webhook header");
    }
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(good))
    );
    assert!(
        told.refused
            .unwrap()
            .ends_with("gave an answer that was refused: unsafe webhook header")
    );
}

#[tokio::test]
async fn a_version_that_fails_no_more_often_than_the_one_before_goes_on_serving() {
    let world = world();
    behave(&world, "panic");
    drop_version(&world, &guest("hostile")).await;
    assert_eq!(call(&world.transform("acme"), 0..5).await, 5);
    assert_eq!(
        status(&world).state,
        ServingState::Serving,
        "there is nothing to go back to"
    );
    let new = drop_version(&world, &variant(guest("hostile"), 2)).await;
    assert_eq!(call(&world.transform("acme"), 0..5).await, 5);
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(new))
    );
}

#[tokio::test]
async fn a_version_past_its_first_calls_is_not_rolled_back() {
    let mut world = world();
    behave(&world, "echo");
    drop_version(&world, &guest("redact")).await;
    let new = drop_version(&world, &guest("hostile")).await;
    assert_eq!(call(&world.transform("acme"), 0..20).await, 0);
    world.host.settled().await;
    restart(&mut world);
    // The manifest is no version: this one is known to be good.
    behave(&world, "panic");
    world.load().await;
    assert_eq!(call(&world.transform("acme"), 0..5).await, 5);
    world.host.settled().await;
    assert_eq!(status(&world).digest, Some(new));
}

#[tokio::test]
async fn after_a_restart_the_last_good_version_stands_in_for_a_refused_file() {
    let mut world = world();
    let good = drop_version(&world, &guest("redact")).await;
    drop_version(&world, b"not wasm").await;
    assert_eq!(status(&world).digest, Some(good));
    restart(&mut world);
    world.load().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(good))
    );
    assert_eq!(told.refused.as_deref(), Some("the file is not WebAssembly"));
    assert!(world.tenant("acme").unready.is_empty());
}

#[tokio::test]
async fn a_pinned_version_serves_whatever_is_dropped() {
    let world = world();
    behave(&world, "panic");
    drop_version(&world, &guest("redact")).await;
    let pinned = guest("hostile");
    world.put("acme", &format!("{NAME}.pinned"), &pinned);
    world.load().await;
    let told = status(&world);
    assert_eq!(
        (told.digest, told.pinned),
        (Some(Digest::of(&pinned)), true)
    );
    assert_eq!(call(&world.transform("acme"), 0..5).await, 5);
    let newer = drop_version(&world, &variant(guest("redact"), 2)).await;
    assert_eq!(
        status(&world).digest,
        Some(Digest::of(&pinned)),
        "neither faults nor a newer file replace it"
    );
    world.remove("acme", &format!("{NAME}.pinned"));
    world.load().await;
    let told = status(&world);
    assert_eq!((told.digest, told.pinned), (Some(newer), false));

    // One that goes on because the file cannot serve is not pinned any more.
    world.put("acme", &format!("{NAME}.pinned"), &pinned);
    world.load().await;
    world.put("acme", &format!("{NAME}.wasm"), b"no component");
    world.remove("acme", &format!("{NAME}.pinned"));
    world.load().await;
    let told = status(&world);
    assert!(told.refused.is_some());
    assert_eq!(
        (told.digest, told.pinned),
        (Some(Digest::of(&pinned)), false)
    );
}

#[tokio::test]
async fn a_version_that_was_rolled_back_serves_again_when_it_is_promoted() {
    let world = world();
    behave(&world, "panic");
    let good = drop_version(&world, &guest("redact")).await;
    let bad = drop_version(&world, &guest("hostile")).await;
    call(&world.transform("acme"), 0..2).await;
    world.host.settled().await;
    assert_eq!(status(&world).digest, Some(good));
    let promoted = format!("{NAME}.promoted");
    world.put("acme", &promoted, format!("{good}\n"));
    world.load().await;
    assert_eq!(
        status(&world).digest,
        Some(good),
        "that is said of another version"
    );
    world.put("acme", &promoted, format!("{bad}\n"));
    world.load().await;
    call(&world.transform("acme"), 0..5).await;
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(bad))
    );
}

#[tokio::test]
async fn the_calls_of_a_version_are_written_down_as_they_double_from_the_sixteenth_on_and_at_the_end()
 {
    let world = world();
    behave(&world, "echo");
    let digest = drop_version(&world, &guest("hostile")).await;
    let written = || {
        let archive = VersionArchive::look(&world.folder.path().join("versions"));
        archive.versions("acme", NAME).unwrap()[0].0.calls
    };
    let plugin = world.transform("acme");
    for (calls, expected) in [(0..15, 0), (15..16, 16), (16..31, 16), (31..32, 32)] {
        assert_eq!(call(&plugin, calls).await, 0);
        world.host.rescan().await;
        // It is written on a thread that nobody waits for.
        let until = std::time::Instant::now() + support::PATIENCE;
        while written() < expected {
            assert!(std::time::Instant::now() < until, "{} calls", written());
            tokio::task::yield_now().await;
        }
        assert_eq!(written(), expected);
    }
    assert_eq!(call(&plugin, 32..33).await, 0);
    world.host.close().await;
    assert_eq!(written(), 33);
    assert_eq!(history(&world), [(digest, VersionState::Serving, true)]);
}

#[tokio::test]
async fn a_deleted_plugin_leaves_its_versions_behind() {
    let world = world();
    let digest = drop_version(&world, &guest("redact")).await;
    world.remove("acme", &format!("{NAME}.wasm"));
    world.load().await;
    assert!(world.tenant("acme").is_empty());
    let until = std::time::Instant::now() + support::PATIENCE;
    while history(&world) != [(digest, VersionState::Replaced, true)] {
        assert!(std::time::Instant::now() < until, "{:?}", history(&world));
        tokio::task::yield_now().await;
    }
    let file = format!("versions/acme/{NAME}/{digest}.wasm");
    assert_eq!(
        fs::read(world.folder.path().join(file)).unwrap(),
        guest("redact")
    );
}
