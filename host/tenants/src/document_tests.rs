use wasmhook_core::{OnDeadLetter, OrderBy};

use super::*;

fn read_as(text: &str, profile: SignatureProfile) -> Result<Vec<Endpoint>, Fault> {
    let rules = Rules {
        policy: EndpointPolicy::default(),
        profile,
    };
    parse_as(text, &rules).map(|said| said.endpoints)
}

fn parse_as(text: &str, rules: &Rules) -> Result<Said, Fault> {
    let acme = TenantId::new("acme").unwrap();
    parse(text, &acme, rules, Timestamp::UNIX_EPOCH)
}

fn read(text: &str) -> Result<Vec<Endpoint>, Fault> {
    read_as(text, SignatureProfile::Standard)
}

const ORDERS: &str = r#"
[[endpoints]]
id = "orders"
url = "https://example.com/hooks"
secrets = ["main"]
events = ["invoice.paid"]
"#;

#[test]
fn a_full_entry_is_read() {
    let more = r#"
        headers = { X-Env = "test" }
        disabled = true
        profile = "sha256"
        signature_header = "X-Acme-Sig"
    "#;
    let endpoints = read(&format!("{ORDERS}{more}")).unwrap();
    let endpoint = &endpoints[0];
    assert!(endpoint.disabled);
    assert_eq!(endpoint.headers.len(), 1);
    let SignatureProfile::Sha256 {
        signature_header,
        event_id_header,
        ..
    } = &endpoint.profile
    else {
        panic!("the profile is not sha256");
    };
    assert_eq!(signature_header, "x-acme-sig");
    assert_eq!(event_id_header, "x-webhook-event-id");
}

#[test]
fn an_endpoint_asks_for_order() {
    let ordering = |text: &str| {
        let endpoints = read(&format!("{ORDERS}ordering = {text}"));
        endpoints.map(|endpoints| endpoints[0].ordering.unwrap())
    };
    assert_eq!(read(ORDERS).unwrap()[0].ordering, None);
    let plain = ordering("{ by = \"key\" }").unwrap();
    assert_eq!(plain.by, OrderBy::Key);
    assert_eq!(plain.on_dead_letter, OnDeadLetter::Skip);
    assert_eq!(plain.max_attempts, None);
    let all =
        ordering("{ by = \"endpoint\", on_dead_letter = \"block\", max_attempts = 5 }").unwrap();
    assert_eq!(all.by, OrderBy::Endpoint);
    assert_eq!(all.on_dead_letter, OnDeadLetter::Block);
    assert_eq!(all.max_attempts.unwrap().get(), 5);
    for (bad, key) in [
        ("{}", "ordering"),
        ("{ by = \"tenant\" }", "ordering.by"),
        (
            "{ by = \"key\", max_attempts = 0 }",
            "ordering.max_attempts",
        ),
        (
            "{ by = \"key\", on_dead_letter = \"drop\" }",
            "ordering.on_dead_letter",
        ),
        ("{ by = \"key\", skip = 1 }", "ordering.skip"),
    ] {
        let fault = ordering(bad).unwrap_err();
        assert_eq!(
            fault.key,
            Some(format!("endpoints[0].{key}")),
            "{bad}: {}",
            fault.reason
        );
    }
}

#[test]
fn a_tenant_has_a_quota() {
    let rules = Rules {
        policy: EndpointPolicy::default(),
        profile: SignatureProfile::Standard,
    };
    let quota = |more: &str| parse_as(&format!("{more}\n{ORDERS}"), &rules).map(|said| said.quota);
    assert!(quota("").unwrap().is_default());
    let limited = quota("max_in_flight = 20").unwrap();
    assert_eq!(limited.max_in_flight.unwrap().get(), 20);
    for bad in ["0", "-1", "\"20\"", "5000000000"] {
        let fault = quota(&format!("max_in_flight = {bad}")).unwrap_err();
        assert_eq!(fault.key.as_deref(), Some("max_in_flight"), "{bad}");
        let words = "line 1: expected a whole number from 1 to 4294967295";
        assert_eq!(fault.reason, words, "{bad}");
    }
    assert_eq!(quota("weight = 7").unwrap().weight.get(), 7);
    for bad in ["0", "101", "300", "-1"] {
        let fault = quota(&format!("weight = {bad}")).unwrap_err();
        assert_eq!(fault.key.as_deref(), Some("weight"), "{bad}");
        let words = "line 1: expected a whole number from 1 to 100";
        assert_eq!(fault.reason, words, "{bad}");
    }
}

#[test]
fn the_hosts_profile_is_the_default() {
    let endpoints = read_as(ORDERS, SignatureProfile::sha256()).unwrap();
    assert_eq!(endpoints[0].profile, SignatureProfile::sha256());
    let standard = format!("{ORDERS}profile = \"standard\"");
    let endpoints = read_as(&standard, SignatureProfile::sha256()).unwrap();
    assert_eq!(endpoints[0].profile, SignatureProfile::Standard);
}

#[test]
fn a_plugin_that_signs_is_named_and_the_body_has_either_form() {
    let text = format!("{ORDERS}profile = \"plugin\"\nsigner = \"30-sign\"\nbody = \"envelope\"\n");
    let endpoint = &read(&text).unwrap()[0];
    let SignatureProfile::Plugin { signer } = &endpoint.profile else {
        panic!("{:?}", endpoint.profile)
    };
    assert_eq!(signer.as_str(), "30-sign");
    assert_eq!(endpoint.body, BodyForm::Envelope);
}

#[test]
fn faults_name_the_key() {
    for (more, key, words) in [
        ("bogus = 1", "endpoints[0].bogus", "unknown field `bogus`"),
        (
            "disabled = \"hunter2\"",
            "endpoints[0].disabled",
            "expected a boolean",
        ),
        (
            "profile = \"hunter2\"",
            "endpoints[0].profile",
            "expected one of `standard`, `sha256`, `plugin`",
        ),
        (
            "ordering = \"hunter2\"",
            "endpoints[0].ordering",
            "expected a table",
        ),
        (
            "ordering = { by = \"key\", max_attempts = 0 }",
            "endpoints[0].ordering.max_attempts",
            "expected a whole number from 1 to 4294967295",
        ),
        (
            "headers = { Host = \"hunter2\" }",
            "endpoints[0].headers",
            "unsafe webhook header",
        ),
        (
            "headers = { X-A = \"hunter2\", x-a = \"hunter2\" }",
            "endpoints[0].headers",
            "two names differ in case only",
        ),
        (
            "signature_header = \"x-a\"",
            "endpoints[0].signature_header",
            "only the sha256 profile",
        ),
        (
            "profile = \"sha256\"\nbody = \"envelope\"",
            "endpoints[0].body",
            "the sha256 profile has no choice of body",
        ),
        (
            "profile = \"plugin\"",
            "endpoints[0].signer",
            "expected the name of the plugin",
        ),
        (
            "signer = \"30-sign\"",
            "endpoints[0].signer",
            "only the plugin profile",
        ),
        (
            "profile = \"plugin\"\nsigner = \"../x\"",
            "endpoints[0].signer",
            "expected the name of a plugin",
        ),
        (
            "profile = \"plugin\"\nsigner = \"30-sign\"\nsignature_header = \"x-a\"",
            "endpoints[0].signature_header",
            "only the sha256 profile",
        ),
        (
            "profile = \"sha256\"\nevent_id_header = \"host\"",
            "endpoints[0].event_id_header",
            "reserved for the host",
        ),
        (
            "profile = \"sha256\"\nevent_id_header = \"x-signature\"",
            "endpoints[0].signature_header",
            "different names",
        ),
    ] {
        let fault = read(&format!("{ORDERS}{more}")).unwrap_err();
        assert_eq!(fault.key.as_deref(), Some(key), "{more}: {}", fault.reason);
        assert!(fault.reason.contains(words), "{more}: {}", fault.reason);
        assert!(
            !fault.reason.contains("hunter2"),
            "{more}: {}",
            fault.reason
        );
    }
}

#[test]
fn rules_of_the_domain_hold() {
    for (from, to, key) in [
        (
            "https://example.com/hooks",
            "http://example.com/",
            "endpoints[0].url",
        ),
        (
            "[\"main\"]",
            "[\"../other/main\"]",
            "endpoints[0].secrets[0]",
        ),
        ("[\"main\"]", "[]", "endpoints[0].secrets"),
        (
            "[\"invoice.paid\"]",
            "[\"*\", \"a.*\"]",
            "endpoints[0].events[1]",
        ),
        ("[\"invoice.paid\"]", "[]", "endpoints[0].events"),
        ("\"orders\"", "\"\"", "endpoints[0].id"),
        ("\"orders\"", "\" (resolver)\"", "endpoints[0].id"),
    ] {
        let fault = read(&ORDERS.replace(from, to)).unwrap_err();
        assert_eq!(fault.key.as_deref(), Some(key), "{}", fault.reason);
    }
}

#[test]
fn an_id_cannot_be_used_twice() {
    let fault = read(&format!("{ORDERS}{ORDERS}")).unwrap_err();
    assert_eq!(fault.key.as_deref(), Some("endpoints[1].id"));
}

#[test]
fn broken_toml_names_the_line() {
    let fault = read("[[endpoints]]\nid = \n").unwrap_err();
    assert!(fault.reason.starts_with("line 2: "), "{}", fault.reason);
}

#[test]
fn a_key_that_is_given_twice_is_named() {
    for (text, reason) in [
        (
            "weight = 2\nweight = 3\n",
            "line 2: the key `weight` is given twice",
        ),
        (
            &format!("{ORDERS}headers = {{ a = \"hunter2\", a = \"b\" }}"),
            "line 7: the key `a` is given twice",
        ),
        (
            &format!("{ORDERS}id = \"hunter2\""),
            "line 7: the key `id` is given twice",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().reason, reason);
    }
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_change_nothing() {
    let text = format!("\u{feff}{}", ORDERS.replace('\n', "\r\n"));
    assert_eq!(read(&text), read(ORDERS));
}
