//! `plugin test` of a plugin that signs.

use std::path::Path;

use serde_json::Value;

use crate::desk::{Desk, text};
use crate::support::{Site, component};

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
    desk.fails(&words, 1, "1 of 1 call failed");
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
