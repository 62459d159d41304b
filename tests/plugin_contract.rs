//! What plugins can do besides transforming and resolving, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Listener, Site, component, http, wait_for};
use tokio::runtime::Runtime;
use wasmhook_testing::{Answer, Received, Receiver, RedisServer};

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
    // Not compared with `next_at` to the millisecond: the system's clock may have been set back meanwhile.
    let waited = at(&told[1], "at").duration_since(at(&told[0], "at"));
    assert!(waited.as_secs() >= 1, "{told:?}");
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
    assert!(told.contains("forgot of acme: 1 keys"), "{told}");

    let global = site.run(&["tenants", "forget", "@global"]);
    let stderr = String::from_utf8_lossy(&global.stderr);
    assert!(
        !global.status.success() && stderr.contains("field `tenant`"),
        "{stderr}"
    );
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

/// A tenant whose endpoint a plugin signs for, with text secrets `main` and `next`.
fn signed_site(style: &str, planned: &Planned) -> Site {
    let site = Site::embedded();
    site.write("secrets/acme/main", "It's a Secret to Everybody");
    site.write("secrets/acme/next", "another one");
    site.write(
        "tenants/acme/tenant.toml",
        &format!(
            "[[endpoints]]\nid = \"main\"\nurl = \"{}\"\nsecrets = [\"main\", \"next\"]\nevents = [\"*\"]\n\
             profile = \"plugin\"\nsigner = \"30-sign\"\nheaders = {{ X-Env = \"live\" }}\n",
            planned.receiver.url("/hook")
        ),
    );
    let manifest = format!("[config]\nstyle = \"{style}\"\n");
    site.plugin("acme", "30-sign", &component("sign_as.wasm"), &manifest);
    site
}

/// The request that a signer's delivery came to.
fn signed_request(style: &str, payload: &Value) -> Received {
    let planned = receiver();
    let site = signed_site(style, &planned);
    let _host = site.serve();
    push(&site, "acme", "evt_1", payload);
    let told = attempts(&site, "acme", "succeeded");
    assert_eq!(told[0]["plugins"][0]["name"], "30-sign");
    let request = planned.receiver.received().pop().unwrap();
    for absent in ["webhook-id", "webhook-signature", "x-signature"] {
        assert_eq!(request.header(absent), None);
    }
    assert_eq!(request.header("x-env"), Some("live"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    request
}

/// HMAC-SHA256 written down from its definition (RFC 2104), apart from the host's.
fn hmac(key: &str, data: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64, "a longer key would be hashed first");
    let padded = |with: u8| {
        let mut block = [with; 64];
        block
            .iter_mut()
            .zip(key.bytes())
            .for_each(|(pad, byte)| *pad ^= byte);
        block
    };
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(data)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

const GITHUB_SECRET: &str = "It's a Secret to Everybody";

#[test]
fn a_plugin_signs_as_github_does() {
    // The vector that GitHub's documentation gives for checking an implementation.
    assert_eq!(
        hex::encode(hmac(GITHUB_SECRET, b"Hello, World!")),
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    );
    let request = signed_request("github", &json!({"zen": "Keep it logically awesome."}));
    let expected = hex::encode(hmac(GITHUB_SECRET, &request.body));
    assert_eq!(
        request.header("x-hub-signature-256"),
        Some(&*format!("sha256={expected}"))
    );
    assert_eq!(request.header("x-github-event"), Some("invoice.paid"));
    assert!(
        request
            .header("x-github-delivery")
            .unwrap()
            .starts_with("whdel_")
    );
}

#[test]
fn a_plugin_signs_as_stripe_does() {
    let request = signed_request("stripe", &json!({"id": "evt_1"}));
    // As Stripe tells receivers to verify: split, take the time and each v1, hash "time.body".
    let header = request.header("stripe-signature").unwrap();
    let parts: Vec<(&str, &str)> = header
        .split(',')
        .map(|part| part.split_once('=').unwrap())
        .collect();
    let (name, time) = parts[0];
    assert_eq!(name, "t");
    let age = jiff::Timestamp::now().as_second() - time.parse::<i64>().unwrap();
    assert!((-5..=300).contains(&age), "{header}");
    let signed = [time.as_bytes(), b".", &request.body].concat();
    let expected = [GITHUB_SECRET, "another one"].map(|key| hex::encode(hmac(key, &signed)));
    assert_eq!(&parts[1..], [("v1", &*expected[0]), ("v1", &*expected[1])]);
}

#[test]
fn a_plugin_signs_as_shopify_does() {
    let request = signed_request("shopify", &json!({"id": 820_982_911_946_154_508_u64}));
    let header = request.header("x-shopify-hmac-sha256").unwrap();
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(header)
        .unwrap();
    assert_eq!(decoded, hmac(GITHUB_SECRET, &request.body));
    assert_eq!(request.header("x-shopify-topic"), Some("invoice.paid"));
}

#[test]
fn a_signer_uses_the_endpoints_keys_only_and_only_while_it_signs() {
    let planned = receiver();
    let site = Site::embedded();
    site.endpoint(
        "acme",
        "other",
        &planned.receiver.url("/other"),
        "order.created",
    );
    site.write("secrets/acme/other", "not for this endpoint");
    let file = site.path("tenants/acme/tenant.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    site.write("secrets/acme/pair", "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==");
    let endpoint = format!(
        "{before}[[endpoints]]\nid = \"main\"\nurl = \"{}\"\nsecrets = [\"main\", \"pair\"]\n\
         events = [\"invoice.paid\"]\nprofile = \"plugin\"\nsigner = \"30-sign\"\n",
        planned.receiver.url("/hook")
    );
    site.write("tenants/acme/tenant.toml", &endpoint);
    site.plugin("acme", "30-sign", &component("forger.wasm"), "");
    let checked = site.json(&["config", "check"]);
    assert_eq!(checked["problems"], json!([]), "{checked}");
    let _host = site.serve();
    push(&site, "acme", "evt_1", &json!({}));
    attempts(&site, "acme", "succeeded");
    let request = planned.receiver.received().pop().unwrap();
    assert_eq!(
        request.header("x-told").unwrap(),
        r#"keys ["main", "pair"]; main 32 bytes; decoded 32 bytes; other Error::UnknownKey; pair 64 bytes"#
    );
    assert_eq!(request.header("webhook-signature"), Some("mine"));
    let seen = request.header("x-seen").unwrap();
    assert!(
        seen.starts_with("whdel_") && seen.contains(r#"("content-type", "application/json")"#),
        "{seen}"
    );
    // The same component, as a transformer of the same event, had no keys at all.
    let body: String = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        "keys []; main Error::UnknownKey; decoded Error::UnknownKey; other Error::UnknownKey; \
         pair Error::UnknownKey"
    );
}

#[test]
fn nothing_is_sent_that_its_signer_did_not_sign() {
    let planned = receiver();
    let site = Site::embedded();
    let cases = [
        (
            "nothing",
            "its signature was refused: unsafe webhook header: expected at least one header",
        ),
        (
            "host",
            "its signature was refused: unsafe webhook header: header `host` is reserved",
        ),
        ("authorization", "header `authorization` is reserved"),
        (
            "split",
            "the value of header `x-sig` holds a control character",
        ),
        ("many", "returned more than 64 headers"),
        ("fail", "failed: no"),
        (
            "missing",
            "the endpoint's signer 30-sign is no plugin of the tenant that signs",
        ),
    ];
    for (tenant, _) in cases {
        site.write(&format!("secrets/{tenant}/main"), support::SECRET);
        site.write(
            &format!("tenants/{tenant}/tenant.toml"),
            &format!(
                "[[endpoints]]\nid = \"main\"\nurl = \"{}\"\nsecrets = [\"main\"]\nevents = [\"*\"]\n\
                 profile = \"plugin\"\nsigner = \"30-sign\"\n",
                planned.receiver.url("/hook")
            ),
        );
        if tenant != "missing" {
            // The most lenient policy there is.
            let manifest =
                format!("failure = \"deliver-original\"\n[config]\nbehaviour = \"{tenant}\"\n");
            site.plugin(tenant, "30-sign", &component("forger.wasm"), &manifest);
        }
    }
    let _host = site.serve();
    for (tenant, _) in cases {
        push(&site, tenant, "evt_1", &json!({}));
    }
    for (tenant, words) in cases {
        let told = attempts(&site, tenant, "dead_letter");
        assert_eq!(told.len(), 3, "{tenant}: it is tried again: {told:?}");
        let last = told.last().unwrap();
        assert_eq!(last["outcome"], "plugin_error", "{tenant}: {last}");
        assert!(
            last["error"].as_str().unwrap().contains(words),
            "{tenant}: {last}"
        );
    }
    assert_eq!(planned.receiver.count(), 0);
}

/// A site whose operator lets plugins send requests to this machine.
fn fetching_site(allowed: &str) -> Site {
    let site = Site::embedded();
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    site.write(
        "wasmhook.toml",
        &format!("{config}[plugins.grants]\nhttp = {allowed}\n"),
    );
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
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    let config = config.replace(
        "allow_private_addresses = true",
        "allowed_networks = [\"127.0.0.1/32\"]",
    );
    site.write("wasmhook.toml", &config);
    let secret = Answer::status(200).body("{\"secret\":1}");
    receiver.on(
        "/moved",
        Answer::status(302).header("location", receiver.url("/secret")),
    );
    receiver.on("/secret", secret);
    receiver.on(
        "/slow",
        Answer::status(200).after(std::time::Duration::from_secs(30)),
    );
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
