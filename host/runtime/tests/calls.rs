//! Plugins do their work: transform, resolve, configuration, reuse.

mod support;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use support::{FRESH, REUSED, World, body, guest, request, resolve, transform};
use wasmhook_runtime::{
    Choice, Digest, Exports, Fault, Mode, NewEndpoint, PluginHostConfig, Verdict,
};

#[tokio::test]
async fn redact_blanks_fields_and_keeps_everything_else_as_it_was() {
    let world = World::new();
    world.put(
        "acme",
        "10-redact.toml",
        "[config]\nfields = \"email, card\"\n",
    );
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    let plugin = world.transform("acme");
    let payload =
        r#"{"z":1.10,"email":"a@b","a":12345678901234567890123,"in":[{"card":{"n":1},"k":2}]}"#;
    let call = transform(&plugin, payload).await.unwrap();
    assert_eq!(call.digest, Digest::of(&guest("redact")));
    let request = request(call.value);
    assert_eq!(
        request.body,
        r#"{"z":1.10,"email":"[redacted]","a":12345678901234567890123,"in":[{"card":"[redacted]","k":2}],"schema_version":"1"}"#
    );
    assert_eq!((request.content_type, request.headers), (None, Vec::new()));
    let status = world.status("acme", "10-redact");
    assert_eq!((status.calls.calls, status.calls.errors), (1, 0));
    assert!(status.calls.p50.is_some() && status.calls.cpu > Duration::ZERO);
}

#[tokio::test]
async fn route_picks_the_endpoint_that_a_field_names() {
    let world = World::new();
    let config =
        "[config]\nfield = \"customer.region\"\ndefault = \"eu\"\n\"map.us\" = \"ep_america\"\n";
    world.put("acme", "20-route.toml", config);
    world.put("acme", "20-route.wasm", guest("route"));
    world.load().await;
    let plugins = world.tenant("acme");
    assert!(plugins.transforms.is_empty());
    let plugin = &plugins.resolvers[0];
    for (payload, endpoint) in [
        (r#"{"customer":{"region":"us"}}"#, "ep_america"),
        (r#"{"customer":{"region":"asia"}}"#, "asia"),
        ("{}", "eu"),
    ] {
        let resolution = resolve(plugin, payload).await.unwrap().value;
        assert_eq!(resolution.mode, Mode::Replace);
        assert_eq!(
            resolution.choices,
            [Choice::Registered(endpoint.to_owned())]
        );
    }
    let error = transform(plugin, "{}").await.unwrap_err();
    assert_eq!(error.fault.class(), "not-exported");
}

#[tokio::test]
async fn one_component_serves_both_interfaces() {
    let world = World::new();
    world.put("acme", "10-both.wasm", guest("tag-and-route"));
    world.put("acme", "10-both.toml", "[config]\nregions = \"eu,us\"\n");
    world.load().await;
    let plugins = world.tenant("acme");
    let resolver = &plugins.resolvers[0];
    assert_eq!(
        resolver.exports(),
        Exports {
            transform: true,
            resolve: true,
            ..Exports::default()
        }
    );
    let resolution = resolve(resolver, r#"{"region":"eu"}"#).await.unwrap().value;
    assert_eq!(
        resolution.choices,
        [Choice::Registered("eu-archive".to_owned())]
    );
    let call = transform(&plugins.transforms[0], r#"{"region":"eu"}"#)
        .await
        .unwrap();
    assert_eq!(
        request(call.value).headers,
        [("x-region".to_owned(), "eu".to_owned())]
    );
}

#[tokio::test]
async fn a_resolver_makes_endpoints_and_may_choose_none() {
    let world = World::new();
    world.put_hostile("acme", "new-endpoint", "");
    world.put_hostile("none", "nowhere", "");
    world.load().await;
    let plugins = world.tenant("acme");
    let made = resolve(&plugins.resolvers[0], "{}").await.unwrap().value;
    let expected = NewEndpoint {
        url: "https://example.test/hook".to_owned(),
        secret: "main".to_owned(),
        headers: vec![("x-shard".to_owned(), "7".to_owned())],
        ordering_key: Some("customer-1".to_owned()),
    };
    assert_eq!(made.choices, [Choice::New(expected)]);
    let plugins = world.tenant("none");
    let none = resolve(&plugins.resolvers[0], "{}").await.unwrap().value;
    assert_eq!((none.mode, none.choices), (Mode::Replace, Vec::new()));
}

#[tokio::test]
async fn a_fresh_instance_remembers_nothing_and_a_reused_one_serves_as_many_calls_as_it_may() {
    let world = World::with(|config: &mut PluginHostConfig| config.reuse = REUSED);
    world.put_hostile("fresh", "count", FRESH);
    world.put_hostile("reused", "count", "reuse = { calls = 3, seconds = 3600 }");
    world.load().await;
    let (fresh, reused) = (world.transform("fresh"), world.transform("reused"));
    let mut counts = (Vec::new(), Vec::new());
    for _ in 0..5 {
        counts.0.push(body(&fresh, "{}").await);
        counts.1.push(body(&reused, "{}").await);
    }
    assert_eq!(counts.0, ["1"; 5]);
    // The trial start is the first use of the first instance.
    assert_eq!(counts.1, ["1", "2", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_hand_an_instance_on_are_each_charged_their_own_time() {
    const CALLS: usize = 2_000;
    let world = World::new();
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    // The processor times of the workers are far apart from now on.
    tokio::spawn(async { while used(ClockId::ThreadCPUTime) < Duration::from_millis(500) {} })
        .await
        .unwrap();
    let before = used(ClockId::ProcessCPUTime);
    let callers = (0..4).map(|_| {
        let plugin = world.transform("acme");
        tokio::spawn(async move {
            let mut charged = Duration::ZERO;
            for _ in 0..CALLS {
                charged += transform(&plugin, "{}").await.unwrap().cpu;
            }
            charged
        })
    });
    let mut charged = Duration::ZERO;
    for caller in callers.collect::<Vec<_>>() {
        charged += caller.await.unwrap();
    }
    let spent = used(ClockId::ProcessCPUTime).saturating_sub(before);
    assert!(
        charged <= spent,
        "calls were charged {charged:?}, and the whole process spent {spent:?}"
    );
}

fn used(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().expect("a time since the start"),
        time.tv_nsec.try_into().expect("below a second"),
    )
}

#[tokio::test]
async fn an_instance_is_not_used_again_after_a_trap_or_a_dropped_call() {
    let world = World::with(|config| config.reuse = REUSED);
    world.put_hostile("acme", "trap-on-third", "");
    world.load().await;
    let plugin = world.transform("acme");
    assert_eq!(body(&plugin, "{}").await, "1");
    assert_eq!(body(&plugin, "{}").await, "2");
    assert_eq!(
        transform(&plugin, "{}").await.unwrap_err().fault.class(),
        "trap"
    );
    assert_eq!(
        body(&plugin, "{}").await,
        "1",
        "the trapped instance is gone"
    );

    world.put_hostile("acme", "many-headers-on-third", "");
    world.load().await;
    let plugin = world.transform("acme");
    assert_eq!(body(&plugin, "{}").await, "1");
    assert_eq!(body(&plugin, "{}").await, "2");
    let error = transform(&plugin, "{}").await.unwrap_err();
    assert_eq!(error.fault.class(), "too-many-headers");
    assert_eq!(
        body(&plugin, "{}").await,
        "1",
        "so is one that went over a limit with its answer"
    );

    world.put_hostile("slow", "sleep", "limits = { wall_time_ms = 300 }");
    world.load().await;
    let plugin = world.transform("slow");
    let payload = support::event("{}");
    let call = plugin.transform(&payload, &support::ENDPOINT);
    // Begun, and dropped while the guest sleeps.
    let begun = tokio::time::timeout(std::time::Duration::from_millis(50), call).await;
    assert!(begun.is_err());
    drop(begun);
    assert_eq!(
        transform(&plugin, "{}").await.unwrap_err().fault.class(),
        "wall-time"
    );
}

#[tokio::test]
async fn a_guests_own_failure_is_told_apart_and_made_printable() {
    let world = World::new();
    world.put_hostile("acme", "fail", "");
    world.put_hostile("other", "refuse", "");
    world.load().await;
    let error = transform(&world.transform("acme"), "{}").await.unwrap_err();
    let Fault::Guest { retryable, message } = &error.fault else {
        panic!("{error}")
    };
    assert!(retryable);
    assert!(message.starts_with("no luck [0m long long"), "{message}");
    assert_eq!(message.chars().count(), 200);
    let error = transform(&world.transform("other"), "{}")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "plugin 10-hostile: failed: never");
    assert!(matches!(
        error.fault,
        Fault::Guest {
            retryable: false,
            ..
        }
    ));
    let calls = world.status("other", "10-hostile").calls;
    assert_eq!(calls.errors, 1);
    assert_eq!(calls.last_error.unwrap().1, "failed: never");
}

#[tokio::test]
async fn a_guest_skips_and_a_guest_sees_nothing_of_the_host() {
    let world = World::new();
    world.put_hostile("acme", "skip", "");
    world.put_hostile("other", "look-around", "");
    world.load().await;
    let call = transform(&world.transform("acme"), "{}").await.unwrap();
    assert_eq!(call.value, Verdict::Skip("ep_1".to_owned()));
    let seen = body(&world.transform("other"), "{}").await;
    assert_eq!(seen, "args 0 env 0 files 0 passwd false connected false");
}

#[tokio::test]
async fn a_plugin_sees_the_events_that_its_manifest_names() {
    let world = World::new();
    world.put_hostile("acme", "echo", "events = [\"invoice.paid\"]");
    world.load().await;
    let plugin = world.transform("acme");
    assert!(plugin.sees("invoice.paid") && !plugin.sees("invoice.sent"));
    let payload: Value = serde_json::from_str(&body(&plugin, r#"{"a":1}"#).await).unwrap();
    assert_eq!(payload["a"], 1);
}
