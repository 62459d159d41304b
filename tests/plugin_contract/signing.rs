//! Plugins that sign, with keys that the host holds.

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wasmhook_testing::Received;

use crate::planned::{Planned, attempts, receiver};
use crate::support::{SECRET, Site, component, push};

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
        site.write(&format!("secrets/{tenant}/main"), SECRET);
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
