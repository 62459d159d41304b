//! Plugins on a running host: they choose, rewrite, fail and are replaced.

use std::time::Duration;

use serde_json::{Value, json};
use wasmhook_testing::RedisServer;

use crate::events::stream_of;
use crate::support::{Listener, Site, component, event, push_lines, wait_for};

#[test]
fn plugins_choose_the_endpoint_and_rewrite_the_payload() {
    let (eu, us) = (Listener::start(204), Listener::start(204));
    let site = Site::embedded();
    site.endpoint("acme", "eu", &eu.url(), "*");
    site.endpoint("acme", "us", &us.url(), "*");
    site.plugin(
        "acme",
        "10-route",
        &component("route.wasm"),
        "[config]\nfield = \"region\"\n",
    );
    site.plugin(
        "acme",
        "20-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    let line = event(
        "acme",
        "invoice.paid",
        "evt_1",
        &json!({"region": "eu", "card": "4242"}),
    );
    assert!(push_lines(&site, &line).status.success());
    let arrived = eu.wait_for_deliveries(1);
    assert_eq!(arrived[0]["verified"], true);
    let body: Value = serde_json::from_str(arrived[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"region": "eu", "card": "[redacted]", "schema_version": "1"})
    );
    let delivery = wait_for("the record", || {
        site.deliveries("acme", "succeeded").into_iter().next()
    });
    let shown = site.json(&["deliveries", "show", delivery["id"].as_str().unwrap()]);
    let used = &shown["attempts"][0]["plugins"];
    assert_eq!(used[0]["name"], "20-redact");
    assert_eq!(used[0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(used[0]["verdict"], "deliver");
    assert_eq!(shown["resolver"]["verdict"], "resolve");
    assert!(us.arrived().is_empty());
}

#[test]
fn a_plugin_replaced_during_a_stream_loses_and_fails_nothing() {
    const EVENTS: usize = 2_000;
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-shape",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    for round in 0..4 {
        let all = stream_of(EVENTS);
        let part: Vec<_> = all
            .lines()
            .skip(round * EVENTS / 4)
            .take(EVENTS / 4)
            .collect();
        let lines = part.join("\n");
        assert!(push_lines(&site, &lines).status.success());
        let next = if round % 2 == 0 {
            "tag_and_route.wasm"
        } else {
            "redact.wasm"
        };
        site.plugin(
            "acme",
            "10-shape",
            &component(next),
            "[config]\nfields = \"card\"\n",
        );
    }
    receiver.wait_for_deliveries(EVENTS);
    let succeeded = wait_for("all deliveries to be recorded", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == EVENTS)
    });
    let failed: Vec<_> = succeeded
        .iter()
        .filter(|delivery| delivery["attempt"] != 1)
        .map(|d| &d["attempts"][0])
        .collect();
    assert!(
        failed.is_empty(),
        "{} attempts failed: {:?}",
        failed.len(),
        failed[0]
    );
}

#[test]
fn a_resolver_that_fails_holds_the_event_until_it_is_fixed() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "eu", &receiver.url(), "*");
    site.try_often();
    // An endpoint that does not exist: the answer is refused.
    site.plugin(
        "acme",
        "10-route",
        &component("route.wasm"),
        "[config]\nfield = \"region\"\n",
    );
    let _host = site.serve();
    let line = event("acme", "invoice.paid", "evt_1", &json!({"region": "mars"}));
    assert!(push_lines(&site, &line).status.success());
    let held = wait_for("the failed attempt", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(held["endpoint_id"], "(resolver)");
    assert_eq!(held["attempts"][0]["outcome"], "plugin_error");
    assert!(receiver.arrived().is_empty());
    site.write(
        "tenants/acme/plugins/10-route.toml",
        "[config]\nfield = \"region\"\n\"map.mars\" = \"eu\"\n",
    );
    receiver.wait_for_deliveries(1);
}

#[test]
fn events_do_not_pass_by_a_plugin_that_cannot_serve() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "eu", &receiver.url(), "*");
    site.try_often();
    let manifest = "[config]\nfield = \"region\"\n";
    site.write("tenants/acme/plugins/10-route.wasm", "no component at all");
    site.write("tenants/acme/plugins/10-route.toml", manifest);
    let _host = site.serve();
    let line = event("acme", "invoice.paid", "evt_1", &json!({"region": "eu"}));
    assert!(push_lines(&site, &line).status.success());
    let held = wait_for("the held event", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(held["endpoint_id"], "(resolver)");
    assert!(receiver.arrived().is_empty());
    site.plugin("acme", "10-route", &component("route.wasm"), manifest);
    receiver.wait_for_deliveries(1);
}

#[test]
fn broken_components_leave_the_last_good_one_serving_and_say_why() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    let good = std::fs::read(component("redact.wasm")).unwrap();
    for (bytes, words) in [
        (&good[..good.len() / 2], "the file is incomplete"),
        (&b"hello"[..], "the file is not WebAssembly"),
        (&b"\0asm\x01\0\0\0"[..], "core"),
    ] {
        std::fs::write(site.path("tenants/acme/plugins/10-redact.wasm"), bytes).unwrap();
        let listed = wait_for(words, || {
            let listed = site.json(&["plugins", "list"]);
            listed[0]["refused"]
                .as_str()
                .is_some_and(|reason| reason.contains(words))
                .then_some(listed)
        });
        assert_eq!(listed[0]["state"], "serving", "{listed}");
    }
    assert!(
        push_lines(
            &site,
            &event("acme", "invoice.paid", "evt_1", &json!({"card": "4242"}))
        )
        .status
        .success()
    );
    let arrived = receiver.wait_for_deliveries(1);
    assert!(
        arrived[0]["body"].as_str().unwrap().contains("[redacted]"),
        "{arrived:?}"
    );
}

#[test]
fn a_cache_that_takes_nothing_is_named_once_and_taken_up_when_it_does() {
    let site = Site::embedded();
    site.configure(|config| format!("{config}\n[tenants]\nrescan = \"100ms\"\n"));
    let host = site.serve();
    let cache = site.path("data/cache");
    // As a full disk is, which a test cannot have.
    std::fs::remove_dir_all(&cache).unwrap();
    site.plugin("acme", "20-redact", &component("redact.wasm"), "");
    let plugin = || site.json(&["plugins", "list"])[0].clone();
    let words = format!(
        "compiled plugins cannot be kept in {} (plugins.cache): ",
        cache.display()
    );
    wait_for("the refusal", || {
        let refused = plugin()["refused"].as_str()?.to_owned();
        refused.contains(&words).then_some(())
    });
    // Many looks.
    std::thread::sleep(Duration::from_secs(2));
    let log = host.log();
    let told = log.lines().filter(|line| line.contains(&words)).count();
    assert_eq!(told, 1, "{log}");
    std::fs::create_dir(&cache).unwrap();
    wait_for("the plugin to serve", || {
        (plugin()["state"] == "serving").then_some(())
    });
}
