//! What plugins can do besides transforming and resolving, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use serde_json::{Value, json};
use support::{Listener, Site, component, http, wait_for};
use tokio::runtime::Runtime;
use wasmhook_testing::{Answer, Receiver, RedisServer};

const JSON: &str = "Content-Type: application/json";

/// A receiver whose answers the test plans, with the runtime that it lives on.
struct Planned {
    receiver: Receiver,
    _runtime: Runtime,
}

fn receiver() -> Planned {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    Planned {
        receiver: runtime.block_on(Receiver::start()).unwrap(),
        _runtime: runtime,
    }
}

fn push(site: &Site, tenant: &str, id: &str, payload: &Value) {
    let event = json!({"tenant": tenant, "type": "invoice.paid", "id": id, "payload": payload});
    let (status, answer) =
        http(site.port, "POST", "/v1/events", &[JSON], &event.to_string()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// The attempts at the one delivery of a tenant, once it has come to this state.
fn attempts(site: &Site, tenant: &str, state: &str) -> Vec<Value> {
    let delivery = wait_for(&format!("{tenant} to be {state}"), || {
        site.deliveries(tenant, state).pop()
    });
    let id = delivery["id"].as_str().unwrap();
    let story = site.json(&["deliveries", "show", id, "--tenant", tenant]);
    story["attempts"].as_array().unwrap().clone()
}

#[test]
fn a_classifier_decides_about_answers_and_one_that_fails_leaves_it_to_the_host() {
    let planned = receiver();
    let receiver = &planned.receiver;
    let site = Site::embedded();
    let manifest = "[config]\naccepted = \"409\"\nok = \"ok\"\nerror = \"error\"\nretry = \"busy\"\nwait = \"1\"\n";
    let busy = Answer::status(200).body(r#"{"ok":false,"error":"busy"}"#);
    let fine = Answer::status(200).body(r#"{"ok":true}"#);
    receiver.then("/patient", [busy, fine]);
    receiver.on("/duplicate", Answer::status(409));
    receiver.on(
        "/refused",
        Answer::status(200).body(r#"{"ok":false,"error":"token"}"#),
    );
    receiver.on("/prose", Answer::status(200).body("thank you"));
    for tenant in ["patient", "duplicate", "refused", "prose"] {
        site.endpoint(tenant, "main", &receiver.url(&format!("/{tenant}")), "*");
        site.plugin(tenant, "20-judge", &component("judge.wasm"), manifest);
    }
    // As above without the plugin.
    site.endpoint("plain", "main", &receiver.url("/refused"), "*");
    let _host = site.serve();
    for tenant in ["patient", "duplicate", "refused", "prose", "plain"] {
        push(&site, tenant, "evt_1", &json!({"card": "4242"}));
    }

    let told = attempts(&site, "patient", "succeeded");
    assert_eq!(
        (told.len(), &told[0]["outcome"]),
        (2, &json!("failed")),
        "{told:?}"
    );
    assert_eq!(told[0]["plugins"][0]["name"], "20-judge");
    assert_eq!(
        told[0]["error"],
        "the receiver answered with status 200; plugin 20-judge has it tried again: its body asks to try again"
    );
    assert_eq!(told[1]["error"], Value::Null);

    let told = attempts(&site, "duplicate", "succeeded");
    assert_eq!(
        (told.len(), &told[0]["status_code"]),
        (1, &json!(409)),
        "{told:?}"
    );
    assert_eq!(told[0]["outcome"], "accepted");

    let told = attempts(&site, "refused", "dead_letter");
    assert_eq!(
        (told.len(), &told[0]["outcome"]),
        (1, &json!("failed")),
        "{told:?}"
    );

    let told = attempts(&site, "prose", "succeeded");
    assert_eq!(
        told[0]["error"],
        "the receiver answered with status 200; plugin 20-judge: failed: the answer is not JSON; \
         the answer is judged without it"
    );
    assert_eq!(
        attempts(&site, "plain", "succeeded")[0]["plugins"],
        json!([])
    );
}

#[test]
fn a_receiver_that_asks_for_time_gets_it() {
    let planned = receiver();
    let site = Site::embedded();
    let busy = Answer::status(503).header("retry-after", "2");
    planned.receiver.then("/hook", [busy]);
    site.endpoint("acme", "main", &planned.receiver.url("/hook"), "*");
    let _host = site.serve();
    push(&site, "acme", "evt_1", &json!({}));
    let told = attempts(&site, "acme", "succeeded");
    let at = |attempt: &Value, key: &str| -> jiff::Timestamp {
        attempt[key].as_str().unwrap().parse().unwrap()
    };
    // The schedule of the site says 200 ms.
    let put_off = at(&told[0], "next_at").duration_since(at(&told[0], "at"));
    assert!(put_off.as_secs() >= 2, "{told:?}");
    assert!(at(&told[1], "at") >= at(&told[0], "next_at"), "{told:?}");
}

/// The body that came of an event, once it arrived.
fn arrived(site: &Site, receiver: &Listener, id: &str, payload: &Value) -> Value {
    let before = receiver.arrived().len();
    push(site, "acme", id, payload);
    let lines = wait_for("the delivery", || {
        let lines = receiver.arrived();
        (lines.len() > before).then_some(lines)
    });
    serde_json::from_str(lines[before]["body"].as_str().unwrap()).unwrap()
}

/// What plugins keep outlives calls, hosts and versions, and is bounded.
fn plugins_keep_values(site: &Site) {
    let receiver = Listener::start(204);
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    site.write(
        "wasmhook.toml",
        &format!("{config}[plugins.key_value]\nkeys = 3\nbytes = 1000\n"),
    );
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-keeper",
        &component("keeper.wasm"),
        "[grants]\nkey_value = true\n",
    );
    let mut host = site.serve();
    let steps = json!([
        ["get", "a"],
        ["set", "a", "1", 3600],
        ["get", "a"],
        ["increment", "a", 41],
        ["increment", "b"],
        ["swap", "lock", null, "me", 60],
        ["swap", "lock", null, "you", 60],
        ["get", "lock"],
        ["set", "d", "one too many"],
        ["grow", "a", 2000],
        ["delete", "lock"],
        ["delete", "lock"],
    ]);
    assert_eq!(
        arrived(site, &receiver, "evt_1", &steps),
        json!([
            null,
            null,
            "1",
            42,
            1,
            true,
            false,
            "me",
            "Error::TooManyKeys(3)",
            "Error::TooManyBytes(1000)",
            true,
            false
        ])
    );
    assert_eq!(host.stop(), Some(0));
    let _host = site.serve();
    let steps = json!([["increment", "b", 1], ["get", "a"]]);
    assert_eq!(arrived(site, &receiver, "evt_2", &steps), json!([2, "42"]));
}

#[test]
fn plugins_keep_values_on_the_embedded_store() {
    plugins_keep_values(&Site::embedded());
}

#[test]
fn plugins_keep_values_on_redis() {
    let redis = RedisServer::start().unwrap();
    plugins_keep_values(&Site::redis(&redis.url()));
}

#[test]
fn a_sample_skips_what_went_out_before_and_says_so() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let manifest = "[config]\nfield = \"order\"\n[grants]\nkey_value = true\n";
    site.plugin("acme", "10-once", &component("once.wasm"), manifest);
    let _host = site.serve();
    push(&site, "acme", "evt_1", &json!({"order": 7, "n": 1}));
    receiver.wait_for_deliveries(1);
    push(&site, "acme", "evt_2", &json!({"order": 7, "n": 2}));
    push(&site, "acme", "evt_3", &json!({"order": 8, "n": 3}));
    receiver.wait_for_deliveries(2);
    let skipped = wait_for("the skip to be recorded", || {
        let all = site.deliveries("acme", "succeeded");
        let second = all
            .iter()
            .find(|delivery| delivery["event_id"] == "evt_2")?;
        Some(second["id"].as_str().unwrap().to_owned())
    });
    let story = site.json(&["deliveries", "show", &skipped]);
    assert_eq!(story["attempts"][0]["outcome"], "skipped");
    assert_eq!(
        story["attempts"][0]["error"],
        "another event with the same order went out before"
    );
    let shown = site.run(&["deliveries", "show", &skipped]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("skipped") && shown.contains("went out before"),
        "{shown}"
    );
    assert_eq!(receiver.arrived().len(), 2, "the second never left");
}
