//! Plugins of the operator on a running host, around those of every tenant.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Listener, Site, component, push, wait_for};

/// A site with a folder of global plugins.
fn site() -> Site {
    let site = Site::embedded();
    site.configure(|config| format!("{config}[plugins]\nglobal = \"global\"\n"));
    std::fs::create_dir(site.path("global")).unwrap();
    site
}

fn global(site: &Site, name: &str, component: &Path, manifest: &str) {
    site.write(&format!("global/{name}.toml"), manifest);
    let aside = site.path("global/.incoming");
    std::fs::copy(component, &aside).unwrap();
    std::fs::rename(&aside, site.path(&format!("global/{name}.wasm"))).unwrap();
}

/// The plugins that the one attempt at the one delivery of a tenant went through.
fn passed(site: &Site, tenant: &str) -> Vec<(String, String)> {
    let delivery = wait_for(&format!("{tenant}'s delivery"), || {
        site.deliveries(tenant, "succeeded").pop()
    });
    let id = delivery["id"].as_str().unwrap();
    let story = site.json(&["deliveries", "show", id, "--tenant", tenant]);
    let plugins = story["attempts"][0]["plugins"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    plugins
        .iter()
        .map(|used| (text(&used["name"]), text(&used["verdict"])))
        .collect()
}

#[test]
fn they_run_around_the_tenants_own_and_nothing_of_a_tenants_passes_them_by() {
    let receivers = ["acme", "other"].map(|tenant| (tenant, Listener::start(204)));
    let site = site();
    for (tenant, receiver) in &receivers {
        site.endpoint(tenant, "main", &receiver.url(), "*");
    }
    let redact = component("redact.wasm");
    let blanks = |field: &str, version: &str| {
        format!("[config]\nfields = \"{field}\"\nschema_version = \"{version}\"\n")
    };
    global(&site, "before-10-card", &redact, &blanks("card", "before"));
    global(&site, "after-10-note", &redact, &blanks("note", "after"));
    // A tenant's own plugin that fails, and asks for the original then.
    let failing = "failure = \"deliver-original\"\n[config]\nbehaviour = \"panic\"\n";
    let hostile = component("hostile.wasm");
    site.plugin("acme", "10-own", &hostile, failing);
    let _host = site.serve();
    let payload = json!({"card": "4242", "note": "private", "kept": 1});
    for (tenant, receiver) in &receivers {
        push(&site, tenant, "evt_1", &payload);
        let arrived = receiver.wait_for_deliveries(1);
        let body: Value = serde_json::from_str(arrived[0]["body"].as_str().unwrap()).unwrap();
        let wanted = json!({"card": "[redacted]", "note": "[redacted]", "kept": 1, "schema_version": "after"});
        assert_eq!(body, wanted, "{tenant}");
    }
    let step = |name: &str, verdict: &str| (name.to_owned(), verdict.to_owned());
    let (before, after) = (
        step("@global/before-10-card", "deliver"),
        step("@global/after-10-note", "deliver"),
    );
    let own = step("10-own", "trap");
    assert_eq!(passed(&site, "acme"), [before.clone(), own, after.clone()]);
    assert_eq!(passed(&site, "other"), [before, after]);
}

#[test]
fn they_are_watched_and_chosen_under_a_word_that_no_tenant_has() {
    let receiver = Listener::start(204);
    let site = site();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let log = "[config]\nbehaviour = \"log-once\"\n";
    let hostile = component("hostile.wasm");
    global(&site, "before-10-look", &hostile, log);
    let _host = site.serve();
    push(&site, "acme", "evt_1", &json!({}));
    receiver.wait_for_deliveries(1);
    let listed = site.json(&["plugins", "list", "--tenant", "@global"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"], &listed[0]["calls"]),
        (&json!("before-10-look"), &json!("serving"), &json!(1))
    );
    // What it logs is the operator's, and says for whom.
    let words = ["plugins", "logs", "@global", "before-10-look"];
    let shown = wait_for("its line", || {
        let shown = String::from_utf8(site.run(&words).stdout).unwrap();
        shown.contains("seen once").then_some(shown)
    });
    assert!(
        shown.contains("@global/before-10-look for acme: seen once"),
        "{shown}"
    );
    let tenants = site.run(&["plugins", "logs", "acme"]).stdout;
    assert!(
        String::from_utf8(tenants)
            .unwrap()
            .contains("nothing logged")
    );

    let first = listed[0]["digest"].clone();
    global(&site, "before-10-look", &component("redact.wasm"), "");
    let version = || site.json(&["plugins", "list", "--tenant", "@global"])[0]["digest"].clone();
    wait_for("the next version", || (version() != first).then_some(()));
    let name = ["@global", "before-10-look"];
    let told = site.json(&[&["plugins", "history"][..], &name].concat());
    assert_eq!(told.as_array().unwrap().len(), 2);
    site.json(&[&["plugins", "rollback"][..], &name].concat());
    wait_for("the first version", || (version() == first).then_some(()));
    let digest = first.as_str().unwrap();
    site.json(&[&["plugins", "pin"][..], &name, &[digest]].concat());
    site.json(&[&["plugins", "unpin"][..], &name].concat());

    // Without the folder nothing is delivered past them.
    std::fs::rename(site.path("global"), site.path("away")).unwrap();
    let checked = site.run(&["config", "check"]);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains("plugins.global"), "{said}");
}
