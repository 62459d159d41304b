//! New versions beside the one that serves: canaries and shadows.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{World, event, guest, variant};
use wasmhook_runtime::{
    CallResult, Digest, EventView, Fault, Hash, Judgement, KeyError, KeyForm, PluginHost,
    PluginHostConfig, PluginStatus, ResponseView, RolloutMode, ServingState, Signer, UnsignedView,
    Verdict, VersionArchive, VersionState,
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

/// The version that resolves for an event, if one does.
fn resolver(world: &World, id: &str) -> Option<Digest> {
    let plugins = world.tenant("acme");
    let plugin = plugins.resolver_for(id)?;
    let version = plugin.version_with(|exports| exports.resolve, id, "invoice.paid")?;
    Some(version.digest())
}

/// Ids of an event that goes to the canary and of one that does not.
fn one_of_each(world: &World) -> (String, String) {
    let taken: HashSet<String> = ids_of_canary(world).take(1).collect();
    let other = (0..1_000).map(|n| format!("evt_{n}"));
    let serving = world.transform("acme").digest();
    let other = other
        .filter(|id| world.transform("acme").version_for(id).digest() == serving)
        .find(|id| !taken.contains(id));
    (taken.into_iter().next().unwrap(), other.unwrap())
}

#[tokio::test]
async fn what_a_canary_exports_besides_is_asked_about_its_events_alone() {
    let (old, new) = (guest("redact"), guest("tag-and-route"));
    let world = trying_out(CANARY, &old, &new).await;
    let told = status(&world);
    assert_eq!(told.state, ServingState::Canary);
    let exports = told.candidate.unwrap().exports;
    assert!(exports.resolve && !told.exports.unwrap().resolve);
    let (taken, other) = one_of_each(&world);
    assert_eq!(resolver(&world, &taken), Some(Digest::of(&new)));
    assert_eq!(resolver(&world, &other), None);
    for id in [&taken, &other] {
        assert!(call(&world, id).await.is_ok());
    }
    put(&world, "promoted", Digest::of(&new).to_string());
    world.load().await;
    assert_eq!(resolver(&world, &other), Some(Digest::of(&new)));
}

#[tokio::test]
async fn what_a_canary_exports_no_more_is_not_asked_about_its_events() {
    let (old, new) = (guest("tag-and-route"), guest("redact"));
    let world = trying_out(CANARY, &old, &new).await;
    let (taken, other) = one_of_each(&world);
    assert_eq!(resolver(&world, &taken), None);
    assert_eq!(resolver(&world, &other), Some(Digest::of(&old)));

    // With nothing in common.
    let world = trying_out(CANARY, &guest("redact"), &guest("judge")).await;
    let (taken, other) = one_of_each(&world);
    let plugins = world.tenant("acme");
    let is_asked = |id: &str| {
        let all = [&plugins.transforms[0], &plugins.classifiers[0]];
        let [transforms, judges] = all;
        (
            transforms
                .version_with(|exports| exports.transform, id, "invoice.paid")
                .is_some(),
            judges
                .version_with(|exports| exports.classify, id, "invoice.paid")
                .is_some(),
        )
    };
    assert_eq!(is_asked(&taken), (false, true));
    assert_eq!(is_asked(&other), (true, false));
}

/// No keys.
struct NoKeys;

impl Signer for NoKeys {
    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn hmac(&self, _: &str, _: KeyForm, _: Hash, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Unknown)
    }

    fn ed25519(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::Unknown)
    }
}

#[tokio::test]
async fn a_canary_that_signs_no_more_is_rolled_back_once_an_endpoint_needs_it_to() {
    let (old, new) = (guest("sign-as"), guest("redact"));
    let world = trying_out(CANARY, &old, &new).await;
    assert_eq!(status(&world).state, ServingState::Canary);
    let signer = Arc::clone(&world.tenant("acme").signers[0]);
    let id = (0..1_000)
        .map(|n| format!("evt_{n}"))
        .find(|id| signer.version_for(id).digest() == Digest::of(&new))
        .unwrap();
    let request = UnsignedView {
        delivery_id: "whdel_1",
        event_id: &id,
        event_type: "invoice.paid",
        timestamp: 1,
        headers: &[],
        body: b"{}",
    };
    let keys: Arc<dyn Signer> = Arc::new(NoKeys);
    let error = signer
        .version_for(&id)
        .sign(&support::ENDPOINT, &request, &keys)
        .await
        .unwrap_err();
    assert!(matches!(error.fault, Fault::NotExported { .. }), "{error}");
    world.host.settled().await;
    let told = status(&world);
    assert_eq!(
        (told.state, told.digest),
        (ServingState::RolledBack, Some(Digest::of(&old)))
    );
    let why = told.refused.unwrap();
    assert!(
        why.contains("does not export wasmhook:plugin/sign"),
        "{why}"
    );
    assert_eq!(signer.version_for(&id).digest(), Digest::of(&old));
}

/// Wait for so many comparisons, and say in which parts they differ.
async fn compared(world: &World, count: u64) -> Vec<Vec<&'static str>> {
    let seen = || status(world).candidate.unwrap().comparisons.unwrap();
    until("the comparisons", || {
        let seen = seen();
        seen.equal + seen.different + seen.left_out == count
    })
    .await;
    let seen = seen();
    assert_eq!(seen.left_out, 0);
    let differences = seen.samples.into_iter().map(|sample| sample.parts);
    differences.collect()
}

#[tokio::test]
async fn what_one_of_two_versions_does_not_export_counts_as_leaving_all_as_it_is() {
    const SHADOW: &str = "rollout = { shadow = true }";
    let (small, large) = (guest("redact"), guest("tag-and-route"));
    let world = trying_out(SHADOW, &small, &large).await;
    let event = event(PAYLOAD);
    let plugin = world.transform("acme");
    assert_eq!(resolver(&world, event.id), None, "a shadow chooses nothing");
    plugin.passed_without_resolve(&event, &[]);
    assert_eq!(compared(&world, 1).await, [["choices"]]);
    assert!(call(&world, "evt_1").await.is_ok());
    assert_eq!(compared(&world, 2).await.len(), 2, "it adds a header");

    // And the other way around, where nothing has to run for it.
    let world = trying_out(SHADOW, &large, &small).await;
    let plugin = world.transform("acme");
    assert!(plugin.resolve(&event, &[]).await.is_ok());
    assert_eq!(compared(&world, 1).await, [["choices"]]);
    let calls = status(&world).candidate.unwrap().calls.calls;
    assert_eq!(calls, 0);
}

#[tokio::test]
async fn what_a_shadow_makes_of_answers_and_signatures_is_compared() {
    let manifest = "rollout = { shadow = true }\n[config]\naccepted = \"409\"\n";
    let world = trying_out(manifest, &guest("judge"), &variant(guest("judge"), 1)).await;
    let judge = Arc::clone(&world.tenant("acme").classifiers[0]);
    let response = ResponseView {
        status: 409,
        headers: &[],
        body: b"",
        complete: true,
    };
    let event = event(PAYLOAD);
    let so_far = Judgement::GiveUp;
    let asked = judge.classify(&event, &support::ENDPOINT, &response, so_far);
    assert_eq!(asked.await.unwrap().value.judgement, Judgement::Accepted);
    assert!(compared(&world, 1).await.is_empty(), "they are equal");

    let world = trying_out(manifest, &guest("redact"), &guest("judge")).await;
    let plugin = world.transform("acme");
    plugin.passed_without_classify(&event, &support::ENDPOINT, &response, so_far);
    assert_eq!(compared(&world, 1).await[0][0], "judgement");
    assert!(call(&world, "evt_1").await.is_ok());
    let differences = compared(&world, 2).await;
    assert_eq!(differences[1], ["body"], "nothing would be redacted");
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
