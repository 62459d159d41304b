//! What receivers answer, and who decides what it means.

use serde_json::{Value, json};
use wasmhook_testing::Answer;

use crate::planned::{attempts, receiver};
use crate::support::{Site, component, push};

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
