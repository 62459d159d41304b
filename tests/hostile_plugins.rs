//! Tenants' plugins that mean harm, against the real binary: their own deliveries say so, and a
//! neighbour's arrive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use serde_json::{Value, json};
use support::{Listener, Site, component, event, push_lines, wait_for};
use wasmhook_testing::RedisServer;

/// A host that may deliver to this machine's loopback address and to nothing else that is private.
fn site() -> Site {
    let site = Site::embedded();
    site.allow_this_machine_only();
    site
}

fn hostile(site: &Site, tenant: &str, config: &str) {
    let manifest = format!("failure = \"dead-letter\"\n[config]\n{config}");
    site.plugin(tenant, "10-hostile", &component("hostile.wasm"), &manifest);
}

fn push(site: &Site, tenant: &str, id: &str) {
    support::push(site, tenant, id, &json!({"card": "4242 4242"}));
}

/// The last attempt at the one delivery of a tenant, once that is given up.
fn last_attempt(site: &Site, tenant: &str) -> Value {
    let delivery = wait_for(&format!("{tenant} to be given up"), || {
        site.deliveries(tenant, "dead-letter").pop()
    });
    let id = delivery["id"].as_str().unwrap();
    let story = site.json(&["deliveries", "show", id, "--tenant", tenant]);
    story["attempts"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone()
}

#[test]
fn requests_that_smuggle_and_guests_that_flood_are_plugin_errors_and_neighbours_are_served() {
    let receiver = Listener::start(204);
    let site = site();
    site.endpoint("neighbour", "main", &receiver.url(), "*");
    let cases = [
        (
            "split-header",
            "refused",
            "its request was refused: unsafe webhook header",
        ),
        (
            "host-header",
            "refused",
            "its request was refused: unsafe webhook header",
        ),
        (
            "signature-header",
            "refused",
            "its request was refused: unsafe webhook header",
        ),
        (
            "huge-header",
            "lifted",
            "handed over more than 1310720 bytes at once",
        ),
        ("spin", "cpu-time", "used more than 50 ms of processor time"),
        (
            "sleep",
            "wait-time",
            "waited longer than 1000 ms in calls to the host",
        ),
        ("hog", "memory", "needed more than 67108864 bytes of memory"),
        (
            "panic",
            "trap",
            "trapped: unreachable code, such as a panic or an abort",
        ),
    ];
    for (behaviour, ..) in cases {
        site.endpoint(behaviour, "main", &receiver.url(), "*");
        hostile(&site, behaviour, &format!("behaviour = \"{behaviour}\"\n"));
    }
    let host = site.serve();
    for (behaviour, ..) in cases {
        push(&site, behaviour, "evt_1");
    }
    let neighbours: String = (0..50)
        .map(|n| event("neighbour", "invoice.paid", &format!("evt_{n}"), &json!({})) + "\n")
        .collect();
    assert!(push_lines(&site, &neighbours).status.success());
    receiver.wait_for_deliveries(50);
    for (behaviour, verdict, words) in cases {
        let attempt = last_attempt(&site, behaviour);
        assert_eq!(attempt["plugins"][0]["verdict"], verdict, "{attempt}");
        assert_eq!(attempt["outcome"], "plugin_error", "{behaviour}: {attempt}");
        let error = attempt["error"].as_str().unwrap();
        assert!(
            error.starts_with("plugin 10-hostile: ") && error.contains(words),
            "{behaviour}: {error}"
        );
        assert_eq!(attempt["plugins"][0]["name"], "10-hostile");
    }
    assert!(!host.log().contains("4242 4242"), "a payload is in the log");
    let arrived = receiver.arrived();
    assert!(
        arrived
            .iter()
            .all(|line| line["verified"] == true && line["body"] == "{}"),
        "nothing of what the hostile guests made arrived"
    );
    let listed = site.json(&["plugins", "list", "--tenant", "spin"]);
    let listed = &listed.as_array().unwrap()[0];
    assert_eq!(listed["errors"], 1, "{listed}");
    assert_eq!(
        listed["last_error"]["error"],
        "used more than 50 ms of processor time"
    );
}

#[test]
fn a_resolver_cannot_send_deliveries_where_the_operator_does_not_allow() {
    let receiver = Listener::start(204);
    let site = site();
    site.endpoint("neighbour", "main", &receiver.url(), "*");
    let tricks = [
        ("userinfo", "http://user:password@127.0.0.1/hook"),
        ("scheme", "file:///etc/passwd"),
        ("fragment", "http://127.0.0.1/hook#part"),
        ("private", "http://10.0.0.1/hook"),
        ("metadata", "http://169.254.169.254/latest/meta-data"),
        ("mapped", "http://[::ffff:10.0.0.1]/hook"),
        ("loopback6", "http://[::1]/hook"),
        ("short-number", "http://0xa000001/hook"),
        ("full-width", "http://\u{ff11}\u{ff10}.0.0.1/hook"),
        ("control", "http://127.0.0.1/ho\\u0000ok"),
    ];
    for (tenant, url) in tricks {
        site.endpoint(tenant, "main", &receiver.url(), "*");
        hostile(
            &site,
            tenant,
            &format!("behaviour = \"trick-url\"\nurl = \"{url}\"\n"),
        );
    }
    let _host = site.serve();
    for (tenant, _) in tricks {
        push(&site, tenant, "evt_1");
    }
    push(&site, "neighbour", "evt_1");
    receiver.wait_for_deliveries(1);
    for (tenant, url) in tricks {
        let attempt = last_attempt(&site, tenant);
        assert_eq!(attempt["status_code"], Value::Null, "{tenant}: {attempt}");
        assert!(
            !attempt["error"].as_str().unwrap().contains("user:password"),
            "{url}: {attempt}"
        );
    }
    assert_eq!(receiver.arrived().len(), 1, "only the neighbour's arrived");
}

#[test]
fn a_resolver_that_spins_does_not_hold_up_the_stream_for_others() {
    let lines = |tenant: &str, count: u32| -> String {
        (0..count)
            .map(|n| event(tenant, "invoice.paid", &format!("evt_{n}"), &json!({})) + "\n")
            .collect()
    };
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("spinner", "main", &receiver.url(), "*");
    site.endpoint("neighbour", "main", &receiver.url(), "*");
    let manifest = "[config]\nbehaviour = \"spin-resolve\"\n";
    site.plugin(
        "spinner",
        "10-hostile",
        &component("hostile.wasm"),
        manifest,
    );
    let _host = site.serve();
    // Asked one after the other, they would take longer than anybody waits.
    assert!(push_lines(&site, &lines("spinner", 4000)).status.success());
    assert!(push_lines(&site, &lines("neighbour", 20)).status.success());
    receiver.wait_for_deliveries(20);
}
