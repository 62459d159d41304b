//! Plugins in every language of `plugins/`, dropped into a tenant's folder and run by the real host.
//!
//! All of them do what `plugins/rust/redact` does, and must do it alike; those that export `resolve`
//! also choose endpoints as `plugins/rust/route` does. `cargo xtask test` skips the tests, by their
//! names, of the languages whose tools are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Listener, Site, component, push_lines, root, wait_for};

/// How long an unoptimised host may take to compile a language's whole runtime on a busy machine.
const COMPILE: Duration = Duration::from_secs(600);

/// What each language does to a payload, to the byte.
const REDACTED: [(&str, &str); 8] = [
    (
        r#"{"total":1.00,"card":{"number":"4242"},"lines":[{"email":"a@example.com","n":1}]}"#,
        r#"{"total":1.00,"card":"[redacted]","lines":[{"email":"[redacted]","n":1}],"schema_version":"2"}"#,
    ),
    (
        r#"{"big":12345678901234567890123,"small":-1.5e-7,"zulu":1,"alpha":null}"#,
        r#"{"big":12345678901234567890123,"small":-1.5e-7,"zulu":1,"alpha":null,"schema_version":"2"}"#,
    ),
    (
        r#"{"name":"Zoë \"Z\"","\u0063ard":"4242","emails":"kept"}"#,
        r#"{"name":"Zoë \"Z\"","card":"[redacted]","emails":"kept","schema_version":"2"}"#,
    ),
    (
        r#"{"schema_version":1,"card":null}"#,
        r#"{"schema_version":"2","card":"[redacted]"}"#,
    ),
    ("{}", r#"{"schema_version":"2"}"#),
    (
        r#"[{"card":1},2.50,"x"]"#,
        r#"[{"card":"[redacted]"},2.50,"x"]"#,
    ),
    ("3.0", "3.0"),
    (r#""card""#, r#""card""#),
];

/// Payload, and the endpoint that a resolver chooses for it.
const ROUTED: [(&str, &str); 4] = [
    (r#"{"at":{"region":"eu"}}"#, "europe"),
    (r#"{"at":{"region":"main"}}"#, "main"),
    (r#"{"at":{"region":7}}"#, "main"),
    (r#"{"at":"eu"}"#, "main"),
];

const MANIFEST: &str = "[config]\nfields = \"card, email\"\nschema_version = \"2\"\n\
                        field = \"at.region\"\n\"map.eu\" = \"europe\"\n";

#[test]
fn a_plugin_in_rust_redacts_alike() {
    redacts(&component("redact.wasm"));
}

#[test]
fn a_plugin_in_rust_routes_alike() {
    routes(&component("route.wasm"));
}

#[test]
fn a_plugin_in_c_redacts_alike() {
    redacts(&guest("c"));
}

#[test]
fn a_plugin_in_typescript_redacts_alike() {
    redacts(&guest("typescript"));
}

#[test]
fn a_plugin_in_javascript_redacts_and_routes_alike() {
    redacts_and_routes(&guest("javascript"));
}

#[test]
fn a_plugin_in_python_redacts_and_routes_alike() {
    redacts_and_routes(&guest("python"));
}

#[test]
fn a_plugin_in_go_redacts_and_routes_alike() {
    redacts_and_routes(&guest("go"));
}

/// The component of a language.
fn guest(language: &str) -> PathBuf {
    let file = root().join(format!("plugins/target/components/{language}.wasm"));
    assert!(
        file.is_file(),
        "{} is missing; run `cargo xtask guests --all`",
        file.display()
    );
    file
}

/// A host with the component serving tenant `acme`, an endpoint `main` for every event and an endpoint
/// `europe` for none of those pushed here.
struct Stage {
    main: Listener,
    europe: Listener,
    site: Site,
    _host: support::Host,
    digest: String,
}

impl Stage {
    fn set(component: &Path) -> Self {
        let (main, europe) = (Listener::start(204), Listener::start(204));
        let site = Site::embedded();
        site.endpoint("acme", "main", &main.url(), "*");
        site.endpoint("acme", "europe", &europe.url(), "order.created");
        site.plugin("acme", "10-guest", component, MANIFEST);
        let host = site.serve();
        let stage = Self {
            main,
            europe,
            site,
            _host: host,
            digest: hex::encode(Sha256::digest(std::fs::read(component).unwrap())),
        };
        stage.wait_until_serving();
        stage
    }

    fn wait_until_serving(&self) {
        let until = Instant::now() + COMPILE;
        loop {
            let listed = self.site.json(&["plugins", "list"]);
            if listed[0]["state"] == "serving" {
                assert_eq!(listed[0]["digest"], self.digest.as_str());
                return;
            }
            assert!(
                listed[0]["refused"].is_null() && Instant::now() < until,
                "the plugin does not serve: {listed}"
            );
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    fn push<'a>(&self, prefix: &str, payloads: impl Iterator<Item = &'a str>) {
        let lines: Vec<_> = payloads
            .enumerate()
            .map(|(n, payload)| {
                let head =
                    json!({"tenant": "acme", "type": "invoice.paid", "id": format!("{prefix}{n}")});
                let head = head.to_string();
                format!("{},\"payload\":{payload}}}", &head[..head.len() - 1])
            })
            .collect();
        let pushed = push_lines(&self.site, &lines.join("\n"));
        assert!(pushed.status.success(), "{pushed:?}");
    }

    /// Waits until so many deliveries succeeded, and gives them with their attempts.
    fn succeeded(&self, count: usize) -> Vec<Value> {
        wait_for("the deliveries to be recorded", || {
            Some(self.site.deliveries("acme", "succeeded")).filter(|all| all.len() >= count)
        })
    }
}

fn redacts_and_routes(component: &Path) {
    let stage = Stage::set(component);
    stage.redacts();
    stage.routes();
    stage.collects_garbage();
}

fn redacts(component: &Path) {
    let stage = Stage::set(component);
    stage.redacts();
    stage.collects_garbage();
}

fn routes(component: &Path) {
    Stage::set(component).routes();
}

impl Stage {
    /// Several rounds, so that instances serve more than one call.
    fn redacts(&self) {
        const ROUNDS: usize = 10;
        for round in 0..ROUNDS {
            let payloads = REDACTED.iter().map(|(payload, _)| *payload);
            self.push(&format!("redact_{round}_"), payloads);
        }
        let count = ROUNDS * REDACTED.len();
        let arrived = self.main.wait_for_deliveries(count);
        let mut bodies = BTreeMap::new();
        for arrived in &arrived {
            *bodies.entry(body_of_verified(arrived)).or_insert(0) += 1;
        }
        let expected = REDACTED.map(|(_, body)| (body.to_owned(), ROUNDS));
        assert_eq!(bodies, BTreeMap::from(expected));
        for delivery in self.succeeded(count) {
            let attempts = delivery["attempts"].as_array().unwrap();
            assert_eq!(attempts.len(), 1, "an attempt failed: {delivery}");
            let plugins = attempts[0]["plugins"].as_array().unwrap();
            assert_eq!(plugins.len(), 1, "{delivery}");
            assert_eq!(plugins[0]["name"], "10-guest");
            assert_eq!(plugins[0]["digest"], self.digest.as_str());
        }
    }

    /// Payloads of 16 KiB, enough of them for the memory of a language's runtime to run full.
    fn collects_garbage(&self) {
        const EVENTS: usize = 200;
        let before = self.main.arrived().len();
        let recorded = self.site.deliveries("acme", "succeeded").len();
        let items = vec![r#"{"card":"4242","tags":["a","b"],"n":1.50}"#; 400];
        let payload = format!("[{}]", items.join(","));
        self.push("garbage_", std::iter::repeat_n(payload.as_str(), EVENTS));
        let arrived = self.main.wait_for_deliveries(before + EVENTS);
        let expected = payload.replace("4242", "[redacted]");
        for arrived in &arrived[before..] {
            assert!(body_of_verified(arrived) == expected, "{arrived}");
        }
        for delivery in self.succeeded(recorded + EVENTS) {
            let attempts = delivery["attempts"].as_array().unwrap();
            assert_eq!(attempts.len(), 1, "an attempt failed: {delivery}");
        }
    }

    fn routes(&self) {
        let before = self.main.arrived().len();
        self.push("route_", ROUTED.iter().map(|(payload, _)| *payload));
        let to = |endpoint| ROUTED.iter().filter(|(_, to)| *to == endpoint).count();
        let europe = self.europe.wait_for_deliveries(to("europe"));
        let main = self.main.wait_for_deliveries(before + to("main"));
        self.succeeded(before + ROUTED.len());
        assert_eq!(europe.len(), to("europe"));
        assert_eq!(main.len(), before + to("main"));
        assert!(
            body_of_verified(&europe[0]).contains(r#""at":{"region":"eu"}"#),
            "{europe:?}"
        );
    }
}

/// What a receiver got and verified. A name may have kept its escape, which says the same.
fn body_of_verified(arrived: &Value) -> String {
    assert_eq!(arrived["verified"], true, "{arrived}");
    arrived["body"].as_str().unwrap().replace("\\u0063", "c")
}
