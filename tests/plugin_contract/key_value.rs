//! What plugins keep from call to call.

use serde_json::json;
use wasmhook_testing::RedisServer;

use crate::planned::arrived;
use crate::support::{Listener, Site, component, push, wait_for};

/// What plugins keep outlives calls, hosts and versions, and is bounded.
fn plugins_keep_values(site: &Site) {
    let receiver = Listener::start(204);
    site.configure(|config| format!("{config}[plugins.key_value]\nkeys = 3\nbytes = 1000\n"));
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

/// A tenant that is gone leaves what its plugins kept until somebody says that it is gone for good.
fn a_tenant_is_forgotten(site: &Site) {
    let receiver = Listener::start(204);
    let come = || {
        site.endpoint("acme", "main", &receiver.url(), "*");
        let manifest = "[grants]\nkey_value = true\n";
        site.plugin("acme", "10-keeper", &component("keeper.wasm"), manifest);
    };
    let serving = |count: usize| {
        wait_for("the host to look at the folders", || {
            let listed = site.json(&["plugins", "list"]);
            (listed.as_array().unwrap().len() == count).then_some(())
        });
    };
    come();
    let _host = site.serve();
    let steps = json!([["increment", "n"], ["set", "a", "12345", 3600]]);
    assert_eq!(arrived(site, &receiver, "evt_1", &steps), json!([1, null]));
    let forget = |more: &[&str]| site.run(&[&["tenants", "forget", "acme"], more].concat());
    let refused = forget(&[]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("tenant acme exists: remove "), "{stderr}");

    std::fs::remove_dir_all(site.path("tenants/acme")).unwrap();
    serving(0);
    let forgotten = site.json(&["tenants", "forget", "acme"]);
    assert_eq!(
        (&forgotten["keys"], &forgotten["key_bytes"]),
        (&json!(2), &json!(8))
    );
    assert_eq!(forgotten["versions"], 1, "{forgotten}");
    assert!(!site.path("data/versions/acme").exists());
    let again = forget(&[]);
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(told.contains("forgot of acme: 0 keys"), "{told}");
    assert_eq!(
        site.deliveries("acme", "succeeded").len(),
        1,
        "they are left"
    );

    // A tenant of this name that comes later finds nothing.
    come();
    serving(1);
    let steps = json!([["get", "a"], ["increment", "n"]]);
    assert_eq!(arrived(site, &receiver, "evt_2", &steps), json!([null, 1]));
    let forced = forget(&["--force"]);
    let told = String::from_utf8_lossy(&forced.stdout);
    assert!(told.contains("forgot of acme: 1 key of"), "{told}");

    let global = site.run(&["tenants", "forget", "@global"]);
    let stderr = String::from_utf8_lossy(&global.stderr);
    assert_eq!(global.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("'<TENANT>'"), "{stderr}");
    std::fs::remove_dir_all(site.path("tenants")).unwrap();
    let unseen = forget(&[]);
    let stderr = String::from_utf8_lossy(&unseen.stderr);
    assert!(
        stderr.contains("cannot see whether tenant acme is gone"),
        "{stderr}"
    );
}

#[test]
fn a_tenant_is_forgotten_on_the_embedded_store() {
    a_tenant_is_forgotten(&Site::embedded());
}

#[test]
fn a_tenant_is_forgotten_on_redis() {
    let redis = RedisServer::start().unwrap();
    a_tenant_is_forgotten(&Site::redis(&redis.url()));
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
