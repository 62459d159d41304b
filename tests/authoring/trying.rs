//! `plugin test`: what a plugin makes of events, and what it may reach meanwhile.

use std::path::Path;

use serde_json::{Value, json};
use wasmhook_testing::{Answer, Receiver};

use crate::desk::{Desk, EVENTS, text};
use crate::support::{Site, component};

#[test]
fn test_shows_what_changes_and_what_it_costs() {
    let desk = Desk::new();
    let redact = desk.plugin(
        "redact",
        "redact.wasm",
        "[config]\nfields = \"card, email\"\n",
    );
    std::fs::write(desk.path("events.ndjson"), EVENTS).unwrap();
    let words = desk.says(&["plugin", "test", text(&redact), "--events", "events.ndjson"]);
    for line in [
        "evt_1  acme  invoice.paid",
        "  transform for main: deliver ",
        "    -    \"email\": \"ada@example.com\",",
        "    +    \"email\": \"[redacted]\",",
        "    +  \"schema_version\": \"1\"",
        "events: 2, passing it by: 0, calls: 2, failed: 0",
    ] {
        assert!(words.contains(line), "expected {line:?} in {words}");
    }

    let report = desk.json(&["plugin", "test", text(&redact), "--events", "events.ndjson"]);
    let call = &report["events"][0]["calls"][0];
    assert_eq!(call["asked"], "transform");
    assert_eq!(call["outcome"], "deliver");
    assert!(
        call["body"].as_str().unwrap().contains("\"total\":12.50"),
        "{call}"
    );
    assert!(call["cpu_us"].as_u64().unwrap() > 0, "{call}");
    assert!(call["memory_bytes"].as_u64().unwrap() >= 1 << 16, "{call}");
    assert_eq!(report["summary"]["failed"], 0);
}

#[test]
fn test_asks_both_interfaces_for_each_endpoint() {
    let desk = Desk::new();
    let both = desk.plugin(
        "both",
        "tag_and_route.wasm",
        "[config]\nregions = \"eu,us\"\n",
    );
    let event = r#"{"tenant":"acme","type":"order.created","id":"e1","payload":{"region":"eu"}}"#;
    std::fs::write(desk.path("events.ndjson"), event).unwrap();
    let words = desk.says(&[
        "plugin",
        "test",
        text(&both),
        "--events",
        "events.ndjson",
        "--endpoint",
        "eu-main=https://eu.example.com/hooks",
        "--endpoint",
        "us-main=https://us.example.com/hooks",
    ]);
    for line in [
        "  resolve: the endpoints that subscribe, and eu-archive",
        "  transform for eu-main: deliver 15 B with 1 header",
        "    x-region: eu",
        "  transform for us-main: skip: the endpoint is in us",
        "    log info: skipped an endpoint of another region",
        "events: 1, passing it by: 0, calls: 3, failed: 0",
    ] {
        assert!(words.contains(line), "expected {line:?} in {words}");
    }
}

#[test]
fn test_takes_the_endpoints_and_limits_of_a_configuration() {
    let site = Site::embedded();
    site.endpoint(
        "acme",
        "eu-main",
        "http://127.0.0.1:9/hook",
        "order.created",
    );
    site.endpoint("acme", "other", "http://127.0.0.1:9/hook", "invoice.paid");
    site.plugin(
        "acme",
        "10-both",
        &component("tag_and_route.wasm"),
        "[config]\nregions = \"eu\"\n",
    );
    let event = r#"{"tenant":"acme","type":"order.created","id":"e1","payload":{"region":"eu"}}"#;
    site.write("events.ndjson", event);
    let words = |more: &[&str]| {
        let (plugin, events) = (
            site.path("tenants/acme/plugins/10-both.wasm"),
            site.path("events.ndjson"),
        );
        let mut words = vec!["plugin", "test", text(&plugin), "--events", text(&events)];
        words.extend(more);
        let output = site.run(&words);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, stdout, _) = words(&[]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("transform for eu-main") && !stdout.contains("other"),
        "{stdout}"
    );
    // Too little for its answer: the limit is the configuration's, and is named.
    let (code, stdout, stderr) = words(&["--set", "plugins.limits.output_bytes=3"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(
        stdout.contains("FAILED: ") && stdout.contains("3 bytes"),
        "{stdout}"
    );
    assert!(stderr.contains("1 of 2 calls failed"), "{stderr}");
}

#[test]
fn test_compares_two_versions() {
    let desk = Desk::new();
    let old = desk.plugin("old", "redact.wasm", "[config]\nfields = \"card\"\n");
    let new = desk.plugin("new", "redact.wasm", "[config]\nfields = \"card, email\"\n");
    let later = desk.plugin(
        "later",
        "redact.wasm",
        "events = [\"invoice.paid\"]\n[config]\nfields = \"card\"\n",
    );
    std::fs::write(desk.path("events.ndjson"), EVENTS).unwrap();
    let compare = |file: &Path, against: &Path| {
        let output = desk.run(&[
            "plugin",
            "test",
            text(file),
            "--events",
            "events.ndjson",
            "--against",
            text(against),
        ]);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, words) = compare(&old, &old);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("transform for main: the same"), "{words}");
    let (code, words) = compare(&new, &old);
    assert_eq!(code, Some(1), "{words}");
    for line in [
        "transform for main: DIFFERS",
        "-    \"email\": \"ada@example.com\",",
        "other than ",
    ] {
        assert!(words.contains(line), "expected {line:?} in {words}");
    }
    assert!(!words.contains("4242"), "both blank the card: {words}");
    // That it no longer sees a type is a difference, too.
    let (code, words) = compare(&later, &old);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("now:    passes it by"), "{words}");
    assert!(words.contains("old.wasm's: 1"), "{words}");
}

#[test]
fn test_fails_when_a_call_does_and_names_what_is_wrong_with_its_input() {
    let desk = Desk::new();
    let route = desk.plugin("route", "route.wasm", "");
    std::fs::write(desk.path("events.ndjson"), EVENTS).unwrap();
    let words = ["plugin", "test", text(&route), "--events", "events.ndjson"];
    let output = desk.run(&words);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("resolve: FAILED: failed: the configuration key `field` is missing"),
        "{stdout}"
    );
    let events = |lines: &str| std::fs::write(desk.path("events.ndjson"), lines).unwrap();
    events("\n{\"tenant\":\"acme\",\"type\":\"a b\",\"id\":\"1\",\"payload\":{}}");
    desk.fails(
        &words,
        6,
        "events.ndjson line 2: invalid webhook event: field `type`",
    );
    events("\n\n{\"tenant\":\"acme\",");
    desk.fails(
        &words,
        6,
        "events.ndjson line 3: invalid webhook event: expected a JSON object, which ends being one at column 17",
    );
    events("\n");
    desk.fails(&words, 6, "events.ndjson holds no event");
    desk.fails(
        &["plugin", "test", text(&route), "--events", "none"],
        5,
        "none does not exist",
    );
    desk.fails(&["plugin", "test", text(&route)], 2, "--events");
}

#[test]
fn a_plugin_that_is_granted_the_key_value_store_finds_an_empty_one_of_its_own() {
    let desk = Desk::new();
    let manifest = "[config]\nfield = \"order\"\n[grants]\nkey_value = true\n";
    let once = desk.plugin("once", "once.wasm", manifest);
    let event = |id: &str, order: u32| {
        let event = json!({"tenant": "acme", "type": "invoice.paid", "id": id, "payload": {"order": order}});
        format!("{event}\n")
    };
    let events = [event("evt_1", 7), event("evt_2", 7), event("evt_3", 8)].concat();
    std::fs::write(desk.path("events.ndjson"), events).unwrap();
    let words = ["plugin", "test", text(&once), "--events", "events.ndjson"];
    let outcomes = |report: &Value, of: &str| -> Vec<Value> {
        let events = report["events"].as_array().unwrap();
        let call = |event: &Value| event.pointer(of).unwrap().clone();
        events.iter().map(call).collect()
    };
    // Twice, for nothing is left of the run before.
    for _ in 0..2 {
        let report = desk.json(&words);
        assert_eq!(report["summary"]["failed"], 0, "{report}");
        let wanted = ["deliver", "skip", "deliver"];
        assert_eq!(outcomes(&report, "/calls/0/outcome"), wanted);
    }
    // Nor does a version find what the other one has kept.
    let report = desk.json(&[&words[..], &["--against", text(&once)]].concat());
    let differ = report["summary"]["differ"].as_u64();
    assert_eq!(differ, Some(0), "{report}");
    let rows = desk.json(&[
        "plugin",
        "bench",
        text(&once),
        "--events",
        "events.ndjson",
        "--calls",
        "20",
    ]);
    let failed: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["failed"])
        .collect();
    assert_eq!(failed, [0, 0], "{rows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_plugin_reaches_the_hosts_that_the_configuration_allows_and_no_others() {
    let desk = Desk::new();
    let service = Receiver::start().await.unwrap();
    service.on("/of/c7", Answer::status(200).body(r#"{"name":"Ada"}"#));
    let manifest = format!(
        "[config]\nurl = \"{}\"\nfield = \"customer\"\ninto = \"known\"\n[grants]\nhttp = [\"127.0.0.1\"]\n",
        service.url("/of/{}")
    );
    let enrich = desk.plugin("enrich", "enrich.wasm", &manifest);
    let event = json!({"tenant": "acme", "type": "invoice.paid", "id": "evt_1", "payload": {"customer": "c7"}});
    std::fs::write(desk.path("events.ndjson"), event.to_string()).unwrap();
    let words = ["plugin", "test", text(&enrich), "--events", "events.ndjson"];
    desk.fails(&words, 6, "plugins.grants");
    let allowed = [
        "--set",
        "plugins.grants.http=[\"127.0.0.1\"]",
        "--set",
        "delivery.allow_http=true",
    ];
    let words = [&words[..], &allowed].concat();
    // The address rules are those of deliveries.
    desk.fails(&words, 1, "1 of 1 call failed");
    assert_eq!(service.count(), 0);
    let private = ["--set", "delivery.allow_private_addresses=true"];
    let report = desk.json(&[&words[..], &private].concat());
    let body = report["events"][0]["calls"][0]["body"].as_str().unwrap();
    assert!(body.contains(r#""known":{"name":"Ada"}"#), "{report}");
}
