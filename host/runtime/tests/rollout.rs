//! New versions beside the one that serves: canaries and shadows.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{World, event, guest, variant};
use wasmhook_runtime::{
    CallResult, Digest, EventView, PluginHost, PluginHostConfig, PluginStatus, RolloutMode,
    ServingState, Verdict, VersionArchive, VersionState,
};

const NAME: &str = "10-plugin";
const PAYLOAD: &str = r#"{"region":"eu"}"#;
const CANARY: &str = "rollout = { canary_percent = 30, promote_after = 20 }";
const SHADOW: &str = "rollout = { shadow = true, promote_after = 5 }";

fn world() -> World {
    World::with(keeps_versions)
}

fn keeps_versions(config: &mut PluginHostConfig) {
    config.versions_dir = Some(config.tenants_dir.with_file_name("versions"));
    config.cache_dir = Some(config.tenants_dir.with_file_name("cache"));
}

/// A world with a version that serves, and another one, tried out, whose manifest is the given one.
async fn trying_out(manifest: &str, old: &[u8], new: &[u8]) -> World {
    let world = world();
    put(&world, "wasm", old);
    put(&world, "toml", manifest);
    world.load().await;
    assert_eq!(
        status(&world).state,
        ServingState::Serving,
        "the first one serves"
    );
    put(&world, "wasm", new);
    world.load().await;
    world
}

fn put(world: &World, end: &str, bytes: impl AsRef<[u8]>) {
    world.put("acme", &format!("{NAME}.{end}"), bytes);
}

fn status(world: &World) -> PluginStatus {
    world.status("acme", NAME)
}

/// Call for an event as the host does.
async fn call(world: &World, id: &str) -> CallResult<Verdict> {
    let view = EventView {
        id,
        ..event(PAYLOAD)
    };
    let plugin = world.transform("acme").version_for(id);
    plugin.transform(&view, &support::ENDPOINT).await
}

/// Ids of events that go to the canary, without end.
fn ids_of_canary(world: &World) -> impl Iterator<Item = String> {
    let serving = world.transform("acme");
    let canary = status(world).candidate.unwrap().digest;
    (0..)
        .map(|n| format!("evt_{n}"))
        .filter(move |id| serving.version_for(id).digest() == canary)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + support::PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn states(world: &World) -> Vec<(Digest, VersionState)> {
    let archive = VersionArchive::look(&world.folder.path().join("versions"));
    let versions = archive.versions("acme", NAME).unwrap().into_iter();
    versions
        .map(|(record, _)| (record.digest, record.state))
        .collect()
}

#[tokio::test]
async fn a_canary_gets_its_share_of_the_events_and_is_promoted_after_its_calls() {
    let (old, new) = (guest("redact"), variant(guest("redact"), 1));
    let world = trying_out(CANARY, &old, &new).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Canary, Some(Digest::of(&old)))
    );
    assert_eq!(told.candidate.unwrap().mode, RolloutMode::Canary);
    let taken: Vec<String> = ids_of_canary(&world).take(300).collect();
    let last: u32 = taken[299].trim_start_matches("evt_").parse().unwrap();
    assert!(
        (800..1200).contains(&last),
        "300 of {last} events are not some 30 %"
    );
    let distinct: HashSet<Digest> = (0..50)
        .map(|_| world.transform("acme").version_for(&taken[0]).digest())
        .collect();
    assert_eq!(
        distinct.len(),
        1,
        "an event goes to the same version each time"
    );

    for id in &taken[..20] {
        let called = call(&world, id).await.unwrap();
        assert_eq!(called.digest, Digest::of(&new));
    }
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(Digest::of(&new)))
    );
    assert!(told.candidate.is_none());
    assert_eq!(
        states(&world),
        [
            (Digest::of(&old), VersionState::Replaced),
            (Digest::of(&new), VersionState::Serving)
        ]
    );
    // It serves after another look and after a restart, with the same manifest.
    world.load().await;
    assert_eq!(status(&world).state, ServingState::Serving);
    let world = restarted(world).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(Digest::of(&new)))
    );
}

async fn restarted(mut world: World) -> World {
    let mut config = support::config(world.folder.path());
    keeps_versions(&mut config);
    world.host = Arc::new(PluginHost::new(config).unwrap());
    world.load().await;
    world
}

#[tokio::test]
async fn a_canary_that_traps_is_rolled_back_at_once_and_the_old_version_gets_its_events() {
    let manifest = format!("{CANARY}\n[config]\nbehaviour = \"panic\"\n");
    let (old, new) = (guest("tag-and-route"), guest("hostile"));
    let world = trying_out(&manifest, &old, &new).await;
    // A restart goes on where it was: the old version is not in the folder any more.
    let world = restarted(world).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Canary, Some(Digest::of(&old)))
    );

    let id = ids_of_canary(&world).next().unwrap();
    let error = call(&world, &id).await.unwrap_err();
    assert_eq!(error.digest, Digest::of(&new));
    world.host.settled().await;
    assert_eq!(call(&world, &id).await.unwrap().digest, Digest::of(&old));
    let world = restarted(world).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(Digest::of(&old)))
    );
    assert_eq!(
        told.refused.as_deref(),
        Some(
            "it was rolled back: it trapped: unreachable code, such as a panic or an abort, as a \
             canary, in call 1"
        )
    );
}

#[tokio::test]
async fn a_canary_whose_guest_says_too_often_that_it_failed_is_rolled_back() {
    let manifest = format!("{CANARY}\n[config]\nbehaviour = \"fail\"\n");
    let world = trying_out(&manifest, &guest("tag-and-route"), &guest("hostile")).await;
    let ids: Vec<String> = ids_of_canary(&world).take(2).collect();
    for id in &ids {
        assert!(call(&world, id).await.is_err());
    }
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(told.state, ServingState::RolledBack);
    assert!(
        told.refused
            .unwrap()
            .ends_with("2 of its 2 calls as a canary failed, more than 1 %")
    );
}

#[tokio::test]
async fn a_version_with_other_exports_is_not_tried_out() {
    let world = trying_out(CANARY, &guest("redact"), &guest("route")).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(Digest::of(&guest("redact"))))
    );
    assert!(
        told.refused
            .unwrap()
            .starts_with("the component exports other interfaces than version")
    );
}

#[tokio::test]
async fn a_newer_file_takes_the_place_of_a_canary_and_a_promotion_ends_it() {
    let (old, first) = (guest("redact"), variant(guest("redact"), 1));
    let second = variant(guest("redact"), 2);
    let world = trying_out(CANARY, &old, &first).await;
    put(&world, "wasm", &second);
    world.load().await;
    let told = status(&world);
    assert_eq!(told.digest, Some(Digest::of(&old)));
    assert_eq!(told.candidate.unwrap().digest, Digest::of(&second));
    assert!(states(&world).contains(&(Digest::of(&first), VersionState::Withdrawn)));
    put(&world, "promoted", Digest::of(&second).to_string());
    world.load().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(Digest::of(&second)))
    );
    // Back to the version before, which is not tried out beside itself.
    put(&world, "wasm", &second);
    world.load().await;
    assert!(status(&world).candidate.is_none());
}

#[tokio::test]
async fn a_shadow_answers_beside_the_version_that_serves_and_differences_are_told() {
    let manifest = format!("{SHADOW}\n[config]\nbehaviour = \"echo\"\n");
    let (old, new) = (guest("tag-and-route"), guest("hostile"));
    let world = trying_out(&manifest, &old, &new).await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Shadow, Some(Digest::of(&old)))
    );
    for n in 0..3 {
        let called = call(&world, &format!("evt_{n}")).await.unwrap();
        assert_eq!(called.digest, Digest::of(&old));
        let headers = support::request(called.value).headers;
        assert_eq!(headers, [("x-region".to_owned(), "eu".to_owned())]);
        let seen = || status(&world).candidate.unwrap().comparisons.unwrap();
        until("the comparison", || {
            seen().different + seen().left_out == n + 1
        })
        .await;
    }
    let compared = status(&world).candidate.unwrap().comparisons.unwrap();
    assert_eq!((compared.equal, compared.different), (0, 3));
    assert_eq!(compared.samples[0].parts, ["headers"]);
    let digest = Digest::of(b"evt_0").to_string();
    assert_eq!(compared.samples[0].event, digest[..16]);
    assert_eq!(
        status(&world).calls.calls,
        3,
        "the shadow's calls are its own"
    );
}

#[tokio::test]
async fn a_shadow_is_promoted_after_equal_answers_in_a_row() {
    let (old, new) = (guest("redact"), variant(guest("redact"), 1));
    let world = trying_out(SHADOW, &old, &new).await;
    let compared = || status(&world).candidate.and_then(|c| c.comparisons);
    for n in 1..=5 {
        assert_eq!(call(&world, "evt").await.unwrap().digest, Digest::of(&old));
        until("the comparison", || {
            compared().is_none_or(|told| told.equal + told.left_out >= n)
        })
        .await;
    }
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::Serving, Some(Digest::of(&new)))
    );
    assert_eq!(
        told.calls.calls, 0,
        "what it did in the shadow is not counted"
    );
    assert!(call(&world, "evt").await.is_ok());
}

#[tokio::test]
async fn a_shadow_that_traps_ends_and_no_one_notices() {
    let manifest = format!("{SHADOW}\n[config]\nbehaviour = \"panic\"\n");
    let world = trying_out(&manifest, &guest("tag-and-route"), &guest("hostile")).await;
    for n in 0..5 {
        assert!(call(&world, &format!("evt_{n}")).await.is_ok());
        let ended = || status(&world).candidate.is_none_or(|c| c.calls.calls > n);
        until("the shadow's call", ended).await;
    }
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (
            ServingState::RolledBack,
            Some(Digest::of(&guest("tag-and-route")))
        )
    );
    assert!(call(&world, "evt").await.is_ok());
}
