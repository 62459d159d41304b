//! What plugins log.

use serde_json::{Value, json};

use crate::support::{Listener, Site, component, push, wait_for};

#[test]
fn what_plugins_log_is_kept_for_their_tenant_bounded_and_readable() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    for tenant in ["acme", "loud"] {
        site.endpoint(tenant, "main", &receiver.url(), "*");
    }
    let manifest = |behaviour: &str| format!("[config]\nbehaviour = \"{behaviour}\"\n");
    site.plugin(
        "acme",
        "10-one",
        &component("hostile.wasm"),
        &manifest("log-once"),
    );
    site.plugin(
        "acme",
        "20-two",
        &component("hostile.wasm"),
        &manifest("log-once"),
    );
    let loud = format!("limits = {{ log_lines = 40 }}\n{}", manifest("log-much"));
    site.plugin("loud", "10-loud", &component("hostile.wasm"), &loud);
    let host = site.serve();
    push(&site, "acme", "evt_1", &json!({}));
    for n in 0..3 {
        push(&site, "loud", &format!("evt_{n}"), &json!({}));
    }
    receiver.wait_for_deliveries(4);
    let logged = |words: &[&str]| -> Vec<Value> {
        let output = site.run(&[&["plugins", "logs"], words, &["--json"]].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let lines = wait_for("two lines", || {
        let lines = logged(&["acme"]);
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(lines[0]["plugin"], "10-one");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["message"]),
        (&json!("info"), &json!("seen once"))
    );
    assert_eq!(logged(&["acme", "20-two"]).len(), 1);
    assert_eq!(logged(&["acme", "--lines", "1"])[0]["plugin"], "20-two");
    // Three calls of 40 lines and one that counts the rest, and 50 lines in the first second.
    let lines = wait_for("the loud one's lines", || {
        let lines = logged(&["loud", "--lines", "1000"]);
        (lines.len() >= 50).then_some(lines)
    });
    let said = |words: &str| {
        lines
            .iter()
            .any(|line| line["message"].as_str().unwrap().contains(words))
    };
    assert!(said("160 more lines of this call are dropped"), "{lines:?}");
    assert!(lines.len() < 120, "{}", lines.len());
    let shown = site.run(&["plugins", "logs", "acme", "10-one"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("info  10-one: seen once"), "{shown}");
    let nothing = site.run(&["plugins", "logs", "nobody"]);
    assert!(
        String::from_utf8(nothing.stdout)
            .unwrap()
            .contains("nothing logged")
    );
    assert!(
        !host.log().contains("seen once"),
        "the words are the tenant's, not the host's"
    );
}

#[test]
fn what_plugins_print_and_the_words_of_a_panic_are_in_their_tenants_log_only() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let manifest = "failure = \"deliver-original\"\n[config]\nbehaviour = \"panic\"\n";
    site.plugin("acme", "10-panics", &component("hostile.wasm"), manifest);
    let host = site.serve();
    push(&site, "acme", "evt_1", &json!({"card": "s3cr3t"}));
    receiver.wait_for_deliveries(1);
    let shown = wait_for("the panic's words", || {
        let shown = site.run(&["plugins", "logs", "acme"]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        shown.contains("could not handle").then_some(shown)
    });
    assert!(shown.contains("warn  10-panics: thread "), "{shown}");
    let delivery = site.deliveries("acme", "succeeded").remove(0);
    let attempts = site.json(&["deliveries", "show", delivery["id"].as_str().unwrap()]);
    for elsewhere in [host.log(), attempts.to_string()] {
        assert!(!elsewhere.contains("could not handle"), "{elsewhere}");
    }
}

#[test]
fn what_a_plugin_printed_before_it_waited_too_long_is_in_its_tenants_log() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    let limits = [
        ("waits", "wait_time_ms = 200"),
        ("late", "wait_time_ms = 60000, wall_time_ms = 300"),
    ];
    for (tenant, limits) in limits {
        site.endpoint(tenant, "main", &receiver.url(), "*");
        let manifest = format!(
            "failure = \"deliver-original\"\nlimits = {{ {limits} }}\n\
             [config]\nbehaviour = \"print-and-sleep\"\n"
        );
        site.plugin(tenant, "10-slow", &component("hostile.wasm"), &manifest);
    }
    site.configure(|config| format!("{config}\n[plugins.limit_caps]\nwait_time_ms = 60000\n"));
    let _host = site.serve();
    for (tenant, _) in limits {
        push(&site, tenant, "evt_1", &json!({"to": tenant}));
        let words = format!("warn  10-slow: going to {{\"to\":\"{tenant}\"}}");
        wait_for("what it printed", || {
            let shown = site.run(&["plugins", "logs", tenant]);
            let shown = String::from_utf8(shown.stdout).unwrap();
            shown.contains(&words).then_some(())
        });
    }
}
