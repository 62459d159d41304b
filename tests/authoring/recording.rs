//! `events record`: what was delivered becomes a plugin's test.

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::Command;

use serde_json::{Value, json};
use wasmhook_testing::RedisServer;

use crate::desk::text;
use crate::support::{Listener, Site, component, push_lines, wait_for};

/// What records the events of `acme`, with more words.
fn recording<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["events", "record", "--tenant", "acme"], more].concat()
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
    let masked = ["--mask", "email", "--mask", "/1/card", "-o", text(&file)];
    let summary = site.json(&recording(&masked));
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

    let newest = site.run(&recording(&["--type", "invoice.paid", "--limit", "1"]));
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
    let output = site.run(&recording(&["--mask", "customer.email"]));
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
        stderr.contains("left out 1 event, nested too deeply"),
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
        // On Redis it is in the stream until the host has taken it in.
        wait_for("the delivery", || site.deliveries("acme", "pending").pop());
        drop(host);
        let output = site.run(&recording(&[]));
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
    let words = recording(&["--mask", "emial", "-o", text(&file)]);
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

#[test]
fn a_recording_replaces_neither_a_pipe_nor_a_link() {
    let site = recorded(Site::embedded());
    let (pipe, link, file) = (site.path("pipe"), site.path("link"), site.path("file"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Open for both, so that neither side waits for the other.
    let mut end = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let output = site.run(&recording(&["-o", text(&pipe)]));
    assert!(output.status.success(), "{output:?}");
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    let mut written = vec![0; 1 << 16];
    let count = end.read(&mut written).unwrap();
    let written = std::str::from_utf8(&written[..count]).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");

    std::fs::write(&file, "older").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let output = site.run(&recording(&["-o", text(&link)]));
    assert!(output.status.success(), "{output:?}");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");
}
