//! What a plugin's author does on a machine of their own: the real binary, real tools, real components.
//!
//! `cargo xtask test` skips the tests, by their names, of the languages whose tools are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Listener, Site, component, push_lines, root};
use tempfile::TempDir;
use wasmhook_testing::{Answer, Receiver, RedisServer};

/// A folder of an author, with a cache of compiled code that is kept from test to test.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhook"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env(
                "XDG_CACHE_HOME",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/author-cache"),
            )
            .stdin(Stdio::null());
        command
    }

    /// A component with a manifest beside it.
    fn plugin(&self, name: &str, from: &str, manifest: &str) -> PathBuf {
        let file = self.path(&format!("{name}.wasm"));
        std::fs::copy(component(from), &file).unwrap();
        std::fs::write(file.with_extension("toml"), manifest).unwrap();
        file
    }

    /// What stands for the command lines of wit-bindgen and wasm-tools, which take minutes to compile:
    /// `plugins/componentize`, which calls the same libraries.
    fn published_tools(&self) -> PathBuf {
        let own = root().join("plugins/componentize/Cargo.toml");
        let call = format!(
            "#!/bin/sh\nexec cargo run --quiet --locked --manifest-path {} --target-dir {} --",
            own.canonicalize().unwrap().display(),
            root().join("plugins/target/componentize").display(),
        );
        let folder = self.path("tools");
        std::fs::create_dir(&folder).unwrap();
        // wit-bindgen LANGUAGE --world WORLD --out-dir FOLDER WIT
        program(
            &folder.join("wit-bindgen"),
            &format!("{call} $1 $6 $3 $5\n"),
        );
        // wasm-tools component embed --world WORLD WIT CORE --output OUT
        program(
            &folder.join("wasm-tools"),
            &format!("{call} component $5 $4 $6 $8\n"),
        );
        folder
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed, and gives what it printed.
    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["--json"]].concat();
        serde_json::from_str(&self.says(&words)).unwrap()
    }

    fn fails(&self, words: &[&str], code: i32, sentence: &str) {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(
            stderr.contains(sentence) && !stderr.contains("panicked"),
            "expected {sentence:?} in {stderr}"
        );
    }
}

/// Two events, as a project has them.
const EVENTS: &str = include_str!("../host/cli/src/commands/plugin/templates/events.ndjson");

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn check_tells_the_contract_imports_and_costs() {
    let desk = Desk::new();
    let redact = component("redact.wasm");
    let report = desk.json(&["plugin", "check", text(&redact)]);
    assert_eq!(report["exports"], json!(["transform"]));
    assert!(report["contract_version"].is_string());
    let imports = report["imports"].as_array().unwrap();
    assert!(imports.iter().all(|import| import["granted"] == true));
    assert!(
        imports.iter().any(|import| import["name"]
            .as_str()
            .unwrap()
            .starts_with("wasmhook:plugin/config@")),
        "{report}"
    );
    assert!(report["compile_ms"].is_u64());
    assert!(report["instance"]["start_us"].is_u64());
    assert!(report["instance"]["memory_bytes"].as_u64().unwrap() >= 64 << 10);
    let words = desk.says(&["plugins", "check", text(&redact)]);
    assert!(
        words.contains("instance  fresh: ") && words.contains("verdict   the host would serve it")
    );
    // Nothing is left beside the author's files.
    assert_eq!(std::fs::read_dir(desk.folder.path()).unwrap().count(), 0);
}

#[test]
fn check_names_an_import_that_is_not_granted() {
    let desk = Desk::new();
    let source = r#"(component
        (import "wasi:http/outgoing-handler@0.2.0" (instance))
        (instance $nothing)
        (export "wasmhook:plugin/transform@0.1.0" (instance $nothing)))"#;
    std::fs::write(desk.path("greedy.wasm"), wat::parse_str(source).unwrap()).unwrap();
    let output = desk.run(&["plugin", "check", "greedy.wasm", "--json"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["imports"],
        json!([{"name": "wasi:http/outgoing-handler@0.2.0", "granted": false}])
    );
    desk.fails(
        &["plugin", "check", "greedy.wasm"],
        6,
        "wasi:http/outgoing-handler@0.2.0, which plugins are not granted",
    );
    desk.fails(
        &["plugin", "check", "none.wasm"],
        5,
        "none.wasm does not exist",
    );
}

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
    desk.fails(&words, 1, "1 of 1 calls failed");
    assert_eq!(service.count(), 0);
    let private = ["--set", "delivery.allow_private_addresses=true"];
    let report = desk.json(&[&words[..], &private].concat());
    let body = report["events"][0]["calls"][0]["body"].as_str().unwrap();
    assert!(body.contains(r#""known":{"name":"Ada"}"#), "{report}");
}

/// The headers that a plugin signs the first event with, by name.
fn signature(report: &Value) -> Value {
    let call = &report["events"][0]["calls"][0];
    assert_eq!(call["asked"], "sign", "{report}");
    assert_eq!(call["outcome"], "sign", "{report}");
    let headers = call["headers"].as_array().unwrap();
    let pair = |header: &Value| (header[0].as_str().unwrap().to_owned(), header[1].clone());
    headers
        .iter()
        .map(pair)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn test_shows_how_a_request_is_signed() {
    let desk = Desk::new();
    let sign = |style: &str| {
        let manifest = format!("[config]\nstyle = \"{style}\"\n");
        desk.plugin(&format!("{style}-sign"), "sign_as.wasm", &manifest)
    };
    let event = r#"{"tenant":"acme","type":"invoice.paid","id":"e1","payload":"Hello, World!"}"#;
    std::fs::write(desk.path("events.ndjson"), event).unwrap();
    std::fs::write(desk.path("main"), "It's a Secret to Everybody\n").unwrap();
    std::fs::write(desk.path("old.txt"), "another one").unwrap();
    let test = |file: &Path, more: &[&str]| {
        let words = ["plugin", "test", text(file), "--events", "events.ndjson"];
        desk.json(&[&words[..], more].concat())
    };
    let keys = ["--secret-file", "main", "--secret-file", "next=old.txt"];

    let github = signature(&test(&sign("github"), &keys));
    assert_eq!(github["x-github-event"], "invoice.paid");
    // HMAC-SHA256 of the body "\"Hello, World!\"", quotes included, by that secret.
    assert_eq!(
        github["x-hub-signature-256"],
        "sha256=ecddb501376a06b92925a01b186582f725fd94c50d692a1033f57a5358f96a03"
    );
    let stripe = signature(&test(&sign("stripe"), &keys));
    let signed = stripe["stripe-signature"].as_str().unwrap();
    assert_eq!(signed.matches(",v1=").count(), 2, "one for each secret");
    let shopify = signature(&test(&sign("shopify"), &keys));
    assert_eq!(
        shopify["x-shopify-hmac-sha256"],
        "7N21ATdqBrkpJaAbGGWC9yX9lMUNaSoQM/V6U1j5agM="
    );
    for made in [github, stripe, shopify] {
        assert!(!made.to_string().contains("Everybody"), "{made}");
    }

    // A key of this run does as well, and nobody sees it.
    let report = test(&sign("github"), &[]);
    assert_eq!(report["summary"]["made_up_key"], true);
    assert!(!report.to_string().contains("whsec_"), "{report}");
    let words = [
        "plugin",
        "test",
        "github-sign.wasm",
        "--events",
        "events.ndjson",
    ];
    let told = desk.says(&words);
    for line in [
        "  sign for main: sign with 3 headers",
        "    x-hub-signature-256: sha256=",
        "calls: 1, failed: 0",
        "--secret-file gives another",
    ] {
        assert!(told.contains(line), "expected {line:?} in {told}");
    }
    // Two versions sign for the same moment, with the same keys.
    let same = desk.json(&[&words[..], &["--against", "github-sign.wasm"]].concat());
    assert_eq!(same["summary"]["differ"], 0, "{same}");
    let other = desk.run(&[&words[..], &["--against", "shopify-sign.wasm"]].concat());
    assert_eq!(other.status.code(), Some(1), "{other:?}");

    let wrong = desk.plugin("wrong", "sign_as.wasm", "[config]\nstyle = \"telex\"\n");
    let words = ["plugin", "test", text(&wrong), "--events", "events.ndjson"];
    desk.fails(&words, 1, "1 of 1 calls failed");
    std::fs::write(desk.path("bad"), "whsec_hunter2").unwrap();
    let bad = [&words[..], &["--secret-file", "bad"]].concat();
    let output = desk.run(&bad);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(
        stderr.contains("bad: ") && !stderr.contains("hunter2"),
        "{stderr}"
    );
    desk.fails(
        &[&words[..], &["--secret-file", "old.txt"]].concat(),
        2,
        "NAME=FILE",
    );
}

#[test]
fn test_signs_for_the_endpoints_that_name_the_plugin() {
    let site = Site::embedded();
    let endpoint = |id: &str, more: &str| {
        format!(
            "[[endpoints]]\nid = \"{id}\"\nurl = \"https://example.com/{id}\"\nsecrets = [\"main\"]\n\
             events = [\"*\"]\n{more}\n"
        )
    };
    site.write("secrets/acme/main", "It's a Secret to Everybody");
    let endpoints = [
        endpoint("hub", "profile = \"plugin\"\nsigner = \"30-sign\""),
        endpoint("other", "profile = \"plugin\"\nsigner = \"31-sign\""),
        endpoint("plain", "profile = \"sha256\""),
    ];
    site.write("tenants/acme/tenant.toml", &endpoints.concat());
    let manifest = "[config]\nstyle = \"github\"\n";
    site.plugin("acme", "30-sign", &component("sign_as.wasm"), manifest);
    site.plugin("acme", "32-sign", &component("sign_as.wasm"), manifest);
    let event = r#"{"tenant":"acme","type":"invoice.paid","id":"e1","payload":"Hello, World!"}"#;
    site.write("events.ndjson", event);
    let events = site.path("events.ndjson");
    let plugin = site.path("tenants/acme/plugins/30-sign.wasm");
    let words = ["plugin", "test", text(&plugin), "--events", text(&events)];
    let report = site.json(&words);
    let calls = report["events"][0]["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1, "{report}");
    assert_eq!(calls[0]["endpoint"], "hub");
    let signed = signature(&report);
    let value = "sha256=ecddb501376a06b92925a01b186582f725fd94c50d692a1033f57a5358f96a03";
    assert_eq!(
        signed["x-hub-signature-256"], value,
        "by the tenant's own secret"
    );
    assert!(report["summary"]["made_up_key"].is_null(), "{report}");
    // A secret of the author goes before it.
    site.write("mine", "another one");
    let mine = site.path("mine");
    let report = site.json(&[&words[..], &["--secret-file", text(&mine)]].concat());
    assert_ne!(signature(&report)["x-hub-signature-256"], value);
    // Nobody names this one.
    let plugin = site.path("tenants/acme/plugins/32-sign.wasm");
    let words = ["plugin", "test", text(&plugin), "--events", text(&events)];
    let output = site.run(&words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("sign was not asked: no endpoint that subscribes has the profile `plugin` and the signer `32-sign`"),
        "{stderr}"
    );
}

#[test]
fn test_shows_what_answers_are_taken_for() {
    let desk = Desk::new();
    let manifest = "[config]\naccepted = \"409\"\nok = \"ok\"\nerror = \"error\"\nretry = \"rate_limited\"\nwait = \"30\"\n";
    let judge = desk.plugin("judge", "judge.wasm", manifest);
    let event = r#"{"tenant":"acme","type":"invoice.paid","id":"e1","payload":{}}"#;
    std::fs::write(desk.path("events.ndjson"), event).unwrap();
    let answers = [
        r#"{"status": 200, "body": {"ok": false, "error": "rate_limited"}}"#,
        r#"{"status": 200, "body": "{\"ok\": false}"}"#,
        "",
        r#"{"status": 503, "headers": {"Retry-After": "60"}}"#,
    ];
    std::fs::write(desk.path("answers.ndjson"), answers.join("\n")).unwrap();
    let words = [
        "plugin",
        "test",
        text(&judge),
        "--events",
        "events.ndjson",
        "--answer",
        "409",
        "--answer",
        "@answers.ndjson",
    ];
    let told = desk.says(&words);
    for line in [
        "  classify 409 for main: accepted: the receiver has it already (without it: give-up)",
        "  classify 200 for main: retry after 30 s: its body asks to try again (without it: accepted)",
        "  classify 200 for main: give-up: its body says that it failed (without it: accepted)",
        "  classify 503 for main: retry after 60 s (without it: retry)",
        "calls: 4, failed: 0",
    ] {
        assert!(told.contains(line), "expected {line:?} in {told}");
    }
    let report = desk.json(&words);
    let first = &report["events"][0]["calls"][0];
    assert_eq!(first["asked"], "classify");
    assert_eq!(first["status"], 409);
    assert_eq!(first["judgement"], "accepted");
    assert_eq!(first["otherwise"], "give-up");

    // An answer that the plugin cannot make sense of, and one that is no answer.
    desk.fails(
        &[&words[..5], &["--answer", "200"]].concat(),
        1,
        "1 of 1 calls failed",
    );
    desk.fails(
        &[&words[..5], &["--answer", "20"]].concat(),
        2,
        "from 200 to 599",
    );
    desk.fails(
        &words[..5],
        1,
        "classify was not asked: say what receivers answer",
    );
    std::fs::write(desk.path("answers.ndjson"), "200\n{}").unwrap();
    desk.fails(
        &words,
        6,
        "answers.ndjson line 2: expected a status, or JSON",
    );

    let bench = [&["plugin", "bench"], &words[2..7], &["--calls", "10"]].concat();
    let rows = desk.json(&bench);
    let asked: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["asked"])
        .collect();
    assert_eq!(asked, ["classify", "classify"], "{rows}");
}

#[test]
fn check_tells_when_an_export_is_called() {
    let desk = Desk::new();
    let sign = desk.plugin("30-sign", "sign_as.wasm", "");
    let told = desk.says(&["plugin", "check", text(&sign)]);
    let line = "exports   sign (for endpoints with profile = \"plugin\" and signer = \"30-sign\")";
    assert!(told.contains(line), "{told}");
    let judge = desk.plugin("judge", "judge.wasm", "");
    let told = desk.says(&["plugin", "check", text(&judge)]);
    assert!(
        told.contains("exports   classify (for each answer of a receiver)"),
        "{told}"
    );
}

#[test]
fn bench_measures_fresh_and_reused_instances() {
    let desk = Desk::new();
    let redact = desk.plugin("redact", "redact.wasm", "");
    std::fs::write(desk.path("events.ndjson"), EVENTS).unwrap();
    let bench = [
        "plugin",
        "bench",
        text(&redact),
        "--events",
        "events.ndjson",
        "--calls",
        "50",
    ];
    let rows = desk.json(&bench);
    let rows = rows.as_array().unwrap();
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| (&row["asked"], &row["instance"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("transform"), &json!("fresh")),
            (&json!("transform"), &json!("reused"))
        ]
    );
    for row in rows {
        assert_eq!((&row["calls"], &row["failed"]), (&json!(50), &json!(0)));
        assert!(
            row["p50_us"].as_f64() > Some(0.0) && row["p99_us"].as_f64() >= row["p50_us"].as_f64()
        );
        assert!(row["memory_bytes"].as_u64() > Some(0));
    }
    assert!(desk.says(&bench).contains("INSTANCE"));
    let mut none = bench;
    none[6] = "0";
    desk.fails(&none, 2, "from 1 to 100000");
    let unseen = desk.plugin("unseen", "redact.wasm", "events = [\"other\"]");
    desk.fails(
        &[
            "plugin",
            "bench",
            text(&unseen),
            "--events",
            "events.ndjson",
        ],
        1,
        "sees none of these events",
    );
}

/// A site with four events delivered, the last of which is nested deeper than it can be looked through.
fn recorded(site: Site) -> Site {
    let listener = Listener::start(204);
    site.endpoint("acme", "main", &listener.url(), "*");
    site.endpoint("acme", "second", &listener.url(), "*");
    let _host = site.serve();
    let lines = [
        r#"{"tenant":"acme","type":"invoice.paid","id":"e1","payload":{"customer":{"email":"ada@example.com"},"total":1.00}}"#,
        r#"{"tenant":"acme","type":"order.created","id":"e2","payload":{"customer":{"email":"bob@example.com"},"n":7}}"#,
        r#"{"tenant":"acme","type":"invoice.paid","id":"e3","payload":[{"email":"eve@example.com"}, {"card":4242}]}"#,
    ];
    let deep = format!(
        r#"{{"tenant":"acme","type":"order.created","id":"deep","payload":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for line in lines.into_iter().chain([deep.as_str()]) {
        assert!(push_lines(&site, line).status.success());
    }
    listener.wait_for_deliveries(8);
    site
}

#[test]
fn events_of_a_tenant_are_recorded_masked_and_make_a_plugins_test() {
    let site = recorded(Site::embedded());
    let file = site.path("events.ndjson");
    let summary = site.json(&[
        "events",
        "record",
        "--tenant",
        "acme",
        "--mask",
        "email",
        "--mask",
        "/1/card",
        "-o",
        text(&file),
    ]);
    assert_eq!(
        summary["left_out"], 1,
        "what cannot be looked through is not written"
    );
    assert_eq!(
        summary["events"], 3,
        "each event once, though it has two deliveries"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert!(
        !recorded.contains("@example.com") && !recorded.contains("4242"),
        "{recorded}"
    );
    let lines: Vec<_> = recorded.lines().collect();
    assert!(
        lines[0].contains(r#""id":"e1""#)
            && lines[0].contains(r#""payload":{"customer":{"email":"***"},"total":1.00}"#),
        "{recorded}"
    );
    assert!(
        lines[2].contains(r#""payload":[{"email":"***"},{"card":0}]"#),
        "{recorded}"
    );

    let redact = component("redact.wasm");
    let tried = site.json(&["plugin", "test", text(&redact), "--events", text(&file)]);
    assert_eq!(tried["summary"]["failed"], 0);
    assert_eq!(tried["summary"]["calls"], 6, "two endpoints subscribe");

    let words = [
        "events",
        "record",
        "--tenant",
        "acme",
        "--type",
        "invoice.paid",
        "--limit",
        "1",
    ];
    let newest = site.run(&words);
    let newest = String::from_utf8(newest.stdout).unwrap();
    assert!(
        newest.lines().count() == 1 && newest.contains(r#""id":"e3""#),
        "{newest}"
    );
}

#[test]
fn events_are_recorded_from_redis_as_well() {
    let redis = RedisServer::start().unwrap();
    let site = recorded(Site::redis(&redis.url()));
    let words = [
        "events",
        "record",
        "--tenant",
        "acme",
        "--mask",
        "customer.email",
    ];
    let output = site.run(&words);
    let lines = String::from_utf8(output.stdout).unwrap();
    let ids = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["e1", "e2", "e3"], "oldest first");
    assert!(
        !lines.contains("ada@") && !lines.contains("bob@"),
        "{lines}"
    );
    assert!(lines.contains("eve@"), "it is not a customer's: {lines}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("1 events are nested too deeply"),
        "{stderr}"
    );
}

/// Records what was scheduled and keyed, and pushes what was recorded to another host.
fn plans_are_recorded(site: &Site) {
    site.endpoint("acme", "main", "http://127.0.0.1:9/hook", "*");
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(240);
    let at = format!("{at:.3}");
    let line = json!({
        "tenant": "acme", "type": "invoice.paid", "id": "e1", "occurred_at": "2026-01-31T09:00:00Z",
        "deliver_at": at, "ordering_key": "order 7", "payload": {"total": 1},
    });
    let record = |site: &Site| -> Value {
        let host = site.serve();
        assert!(push_lines(site, &line.to_string()).status.success());
        drop(host);
        let output = site.run(&["events", "record", "--tenant", "acme"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let mut recorded = record(site);
    let wanted = line["deliver_at"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>();
    let found = recorded["deliver_at"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>();
    assert_eq!(found.unwrap(), wanted.unwrap());
    recorded["deliver_at"] = line["deliver_at"].clone();
    assert_eq!(recorded, line);

    let other = Site::embedded();
    other.endpoint("acme", "main", "http://127.0.0.1:9/hook", "*");
    assert_eq!(record(&other)["ordering_key"], "order 7");
    let file = site.path("events.ndjson");
    std::fs::write(&file, recorded.to_string()).unwrap();
    let redact = component("redact.wasm");
    let tried = site.json(&["plugin", "test", text(&redact), "--events", text(&file)]);
    assert_eq!(tried["summary"]["failed"], 0, "{tried}");
    assert_eq!(tried["summary"]["calls"], 1, "{tried}");
}

#[test]
fn what_is_scheduled_and_keyed_is_recorded_as_such() {
    plans_are_recorded(&Site::embedded());
    let redis = RedisServer::start().unwrap();
    plans_are_recorded(&Site::redis(&redis.url()));
}

#[test]
fn a_field_that_no_event_has_stops_a_recording() {
    let site = recorded(Site::embedded());
    let file = site.path("events.ndjson");
    let words = [
        "events",
        "record",
        "--tenant",
        "acme",
        "--mask",
        "emial",
        "-o",
        text(&file),
    ];
    let output = site.run(&words);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("has the field emial, so nothing was written"),
        "{stderr}"
    );
    assert!(!file.exists());
    let output = site.run(&[&words[..], &["--allow-unmatched"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("no event has the field emial") && file.exists(),
        "{stderr}"
    );
    let output = site.run(&["events", "record", "--tenant", "globex"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

/// Writes a project called `my-plugin`, builds it and tries it out with the words of its README.
fn written_and_built(desk: &Desk, lang: &str, prepare: impl FnOnce(&Path, &mut Command)) -> Value {
    let written = desk.json(&["plugin", "new", "--lang", lang, "my-plugin"]);
    assert_eq!(written["language"], lang);
    for file in written["files"].as_array().unwrap() {
        assert!(
            desk.path("my-plugin")
                .join(file.as_str().unwrap())
                .is_file(),
            "{file}"
        );
    }
    let mut command = desk.command(&["plugin", "build", "my-plugin", "--json"]);
    prepare(&desk.path("my-plugin"), &mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(built["component"], "my-plugin/my-plugin.wasm");
    assert!(built["refused"].is_null(), "{built}");
    let tried = desk
        .command(&["plugin", "test", "my-plugin.wasm", "--json"])
        .args(["--events", "events.ndjson"])
        .current_dir(desk.path("my-plugin"))
        .output()
        .unwrap();
    assert_eq!(tried.status.code(), Some(0), "{tried:?}");
    let tried: Value = serde_json::from_slice(&tried.stdout).unwrap();
    for event in tried["events"].as_array().unwrap() {
        let transform = event["calls"].as_array().unwrap().last().unwrap();
        let body = transform["body"].as_str().unwrap();
        assert!(
            body.contains(r#""email":"[redacted]""#) && body.contains("schema_version"),
            "{body}"
        );
    }
    built
}

#[test]
fn a_plugin_in_rust_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "rust", |_, build| {
        // With what was downloaded for the samples.
        build
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR");
    });
    assert_eq!(built["exports"], json!(["transform"]));
    desk.fails(
        &["plugin", "new", "--lang", "rust", "my-plugin"],
        1,
        "my-plugin is there already",
    );
}

#[test]
fn a_plugin_in_javascript_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "js", |folder, _| {
        installed("javascript/node_modules", &folder.join("node_modules"));
    });
    assert_eq!(built["exports"], json!(["resolve", "transform"]));
}

#[test]
fn a_plugin_in_typescript_is_written_and_built() {
    let desk = Desk::new();
    desk.says(&["plugin", "new", "--lang", "ts", "my-plugin"]);
    let folder = desk.path("my-plugin");
    installed("typescript/node_modules", &folder.join("node_modules"));
    // Its own build alone: what comes out is compiled as the one in JavaScript is.
    let script = "test -e node_modules || npm ci --no-audit --no-fund; npm run build";
    let built = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let made = std::fs::read(folder.join("my-plugin.wasm")).unwrap();
    assert!(made.starts_with(b"\0asm"));
}

#[test]
fn a_plugin_in_python_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "python", |folder, _| {
        installed("target/tools/python", &folder.join(".venv"));
    });
    assert_eq!(built["exports"], json!(["resolve", "transform"]));
}

#[test]
fn a_plugin_in_c_is_written_and_built() {
    let desk = Desk::new();
    let tools = desk.published_tools();
    let report = written_and_built(&desk, "c", |_, command| {
        command.env("WIT_BINDGEN", tools.join("wit-bindgen"));
    });
    assert_eq!(report["exports"], json!(["transform"]));
    assert_eq!(report["adapted"], true, "it is a core module with its type");
}

#[test]
fn a_plugin_in_go_is_written_and_built() {
    let desk = Desk::new();
    let tools = desk.published_tools();
    let installed = root().join("plugins/target/tools/go/bin/go");
    let go = if installed.is_file() {
        installed
    } else {
        "go".into()
    };
    let report = written_and_built(&desk, "go", |folder, command| {
        // The module that the bindings import comes with their generator here, and from Go's own proxy
        // elsewhere. Nothing is fetched.
        let module = folder.join("go.mod");
        let text = std::fs::read_to_string(&module).unwrap();
        let replaced = format!("{text}\nreplace go.bytecodealliance.org/pkg => ./pkg\n");
        std::fs::write(&module, replaced).unwrap();
        command
            .env("GO", go)
            .env("GOTOOLCHAIN", "local")
            .env("GOPROXY", "off")
            .env("WIT_BINDGEN", tools.join("wit-bindgen"))
            .env("WASM_TOOLS", tools.join("wasm-tools"));
    });
    assert_eq!(report["exports"], json!(["resolve", "transform"]));
}

/// Lets a project have the packages that `cargo xtask` installed for the samples, if it did.
fn installed(from: &str, to: &Path) {
    let from = root().join("plugins").join(from);
    if from.is_dir() {
        std::os::unix::fs::symlink(from.canonicalize().unwrap(), to).unwrap();
    }
}

#[test]
fn new_and_build_say_what_is_wrong() {
    let desk = Desk::new();
    desk.fails(
        &["plugin", "new", "--lang", "rust", "My Plugin"],
        2,
        "a-z 0-9 -",
    );
    desk.fails(
        &["plugin", "new", "--lang", "cobol", "x"],
        2,
        "rust, js, ts, python, c, go",
    );
    desk.fails(&["plugin", "build"], 5, "holds no project that is known");
    desk.fails(
        &["plugin", "build", "nowhere"],
        5,
        "holds no project that is known",
    );
    std::fs::create_dir(desk.path("broken")).unwrap();
    program(&desk.path("broken/build.sh"), "#!/bin/sh\nexit 3\n");
    desk.fails(&["plugin", "build", "broken"], 1, "`build.sh` failed");
}
