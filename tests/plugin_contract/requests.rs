//! Requests that plugins send to services they were granted.

use std::time::Duration;

use serde_json::json;
use wasmhook_testing::{Answer, Received};

use crate::planned::{attempts, receiver};
use crate::support::{Site, component, push, wait_for};

/// A site whose operator lets plugins send requests to this machine.
fn fetching_site(allowed: &str) -> Site {
    let site = Site::embedded();
    site.configure(|config| format!("{config}[plugins.grants]\nhttp = {allowed}\n"));
    site
}

#[test]
fn a_plugin_asks_a_service_that_it_was_granted() {
    let planned = receiver();
    let receiver = &planned.receiver;
    let site = fetching_site(r#"["127.0.0.1"]"#);
    receiver.on(
        "/customers/c%2F7",
        Answer::status(200).body(r#"{"plan":"gold"}"#),
    );
    receiver.on("/customers/nobody", Answer::status(404));
    site.endpoint("acme", "main", &receiver.url("/hook"), "*");
    let manifest = format!(
        "[grants]\nhttp = [\"127.0.0.1\"]\n\
         [config]\nurl = \"{}\"\nfield = \"customer\"\ninto = \"known\"\ntoken = \"t0ken\"\n",
        receiver.url("/customers/{}")
    );
    site.plugin("acme", "10-enrich", &component("enrich.wasm"), &manifest);
    let _host = site.serve();
    let hooks = || -> Vec<Received> {
        let all = receiver.received();
        all.into_iter()
            .filter(|request| request.path == "/hook")
            .collect()
    };
    for (id, customer) in [("evt_1", "c/7"), ("evt_2", "nobody")] {
        let before = hooks().len();
        push(&site, "acme", id, &json!({"customer": customer}));
        wait_for("the delivery", || (hooks().len() > before).then_some(()));
    }
    let hooks = hooks();
    assert_eq!(
        hooks[0].body,
        r#"{"customer":"c/7","known":{"plan":"gold"}}"#
    );
    assert_eq!(hooks[1].body, r#"{"customer":"nobody"}"#);
    let asked = receiver.received().remove(0);
    assert_eq!(
        (asked.method.as_str(), &*asked.path),
        ("GET", "/customers/c%2F7")
    );
    assert_eq!(asked.header("authorization"), Some("Bearer t0ken"));
    assert!(asked.header("user-agent").unwrap().starts_with("wasmhook/"));
}

#[test]
fn a_plugins_requests_go_where_deliveries_may_and_within_bounds() {
    let planned = receiver();
    let receiver = &planned.receiver;
    let site = fetching_site(r#"["127.0.0.1", "169.254.169.254", "*.invalid"]"#);
    site.allow_this_machine_only();
    let secret = Answer::status(200).body("{\"secret\":1}");
    receiver.on(
        "/moved",
        Answer::status(302).header("location", receiver.url("/secret")),
    );
    receiver.on("/secret", secret);
    receiver.on("/slow", Answer::status(200).after(Duration::from_secs(30)));
    receiver.on("/large", Answer::status(200).body("x".repeat(2000)));
    let here = |path: &str| receiver.url(path);
    let port = receiver.address().port();
    let cases = [
        (
            "moved",
            here("/moved"),
            "the service answered with status 302",
        ),
        ("slow", here("/slow"), "no answer: Error::Timeout(300)"),
        (
            "large",
            here("/large"),
            "no answer: Error::ResponseTooLarge(1000)",
        ),
        (
            "metadata",
            "http://169.254.169.254/latest".to_owned(),
            "no answer: Error::AddressRefused",
        ),
        (
            "elsewhere",
            format!("http://localhost:{port}/secret"),
            "no answer: Error::NotGranted",
        ),
        (
            "disguised",
            format!("http://127.0.0.1@localhost:{port}/"),
            "no answer: Error::BadRequest",
        ),
        (
            "number",
            format!("http://2130706434:{port}/"),
            "no answer: Error::NotGranted",
        ),
        (
            "scheme",
            "file:///etc/passwd".to_owned(),
            "no answer: Error::BadRequest",
        ),
        (
            "unknown",
            "http://nobody.invalid/".to_owned(),
            "no answer: Error::Unreachable",
        ),
    ];
    for (tenant, url, _) in &cases {
        site.endpoint(tenant, "main", &here("/hook"), "*");
        let manifest = format!(
            "failure = \"dead-letter\"\n[grants]\nhttp = [\"127.0.0.1\", \"169.254.169.254\", \"nobody.invalid\"]\n\
             [limits]\nhttp_time_ms = 300\nhttp_response_bytes = 1000\n\
             [config]\nurl = \"{url}\"\nfield = \"customer\"\ninto = \"known\"\n"
        );
        site.plugin(tenant, "10-enrich", &component("enrich.wasm"), &manifest);
    }
    // One that asks for more than the operator allows.
    site.endpoint("greedy", "main", &here("/hook"), "*");
    let manifest = "[grants]\nhttp = [\"*\"]\n[config]\nurl = \"x\"\n";
    site.plugin("greedy", "10-enrich", &component("enrich.wasm"), manifest);
    let _host = site.serve();
    for (tenant, ..) in &cases {
        push(&site, tenant, "evt_1", &json!({"customer": "c7"}));
    }
    for (tenant, url, words) in &cases {
        let told = attempts(&site, tenant, "dead_letter");
        let error = told[0]["error"].as_str().unwrap();
        assert!(error.contains(words), "{tenant} {url}: {error}");
    }
    let asked = receiver.received();
    assert!(
        asked.iter().all(|request| request.path != "/secret"),
        "{asked:?}"
    );
    let listed = site.json(&["plugins", "list", "--tenant", "greedy"]);
    assert_eq!(
        listed[0]["refused"],
        "10-enrich.toml asks for http to * under [grants], which this host does not allow (plugins.grants)"
    );
}
