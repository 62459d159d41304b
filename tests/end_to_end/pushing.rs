//! How events come in, and what is said of those that do not.

use serde_json::{Value, json};
use wasmhook_testing::RedisServer;

use crate::events::{stream_of, xadd};
use crate::support::{
    JSON, Listener, Site, event, exchange, http, push_lines, redis_cli, wait_for,
};

#[test]
fn an_event_over_http_arrives_signed_and_a_second_push_makes_no_second_delivery() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let mut host = site.serve();
    let body = r#"{"tenant":"acme","type":"invoice.paid","id":"evt_1","payload":{"total": 1.00}}"#;
    for expected in ["enqueued", "duplicate"] {
        let (status, answer) = http(site.port, "POST", "/v1/events", &[JSON], body).unwrap();
        assert_eq!(status, 202, "{answer}");
        assert!(answer.contains(expected), "{answer}");
    }
    let arrived = receiver.wait_for_deliveries(1);
    assert_eq!(arrived[0]["verified"], true, "{arrived:?}");
    assert_eq!(
        arrived[0]["body"], r#"{"total": 1.00}"#,
        "the payload's bytes were altered"
    );
    wait_for("the delivery to be recorded", || {
        (site.deliveries("acme", "succeeded").len() == 1).then_some(())
    });
    assert_eq!(host.stop(), Some(0));
    assert_eq!(receiver.arrived().len(), 1);
}

#[test]
fn bad_events_are_refused_by_name_and_listed_and_the_rest_of_the_batch_is_delivered() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    let batch = format!(
        "[{},{},{},{}]",
        event("acme", "invoice.paid", "good", &json!({})),
        event("acme", "invoice.lost", "unknown", &json!({})),
        event("", "invoice.paid", "nobody", &json!({})),
        event("acme", "invoice.paid", "large", &json!("x".repeat(300_000))),
    );
    let (status, answer) = http(site.port, "POST", "/v1/events", &[JSON], &batch).unwrap();
    assert_eq!(status, 207);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let words: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["error"]["message"].as_str())
        .collect();
    assert_eq!(words[0], None);
    assert_eq!(
        words[1],
        Some("unsupported webhook event: type `invoice.lost` is not in the catalog")
    );
    assert!(words[2].unwrap().contains("field `tenant`"), "{words:?}");
    assert!(
        words[3]
            .unwrap()
            .contains("field `payload`: expected at most 262144 bytes"),
        "{words:?}"
    );
    receiver.wait_for_deliveries(1);
    let rejected = site.json(&["events", "rejected"]);
    assert_eq!(rejected.as_array().unwrap().len(), 3);
}

#[test]
fn malformed_requests_get_a_clear_answer() {
    let site = Site::embedded();
    let _host = site.serve();
    let cases = [
        ("{\"tenant\":", 422, "expected a JSON object"),
        ("[1,", 400, "expected a JSON array"),
        ("{\"tenent\":\"acme\"}", 422, "unknown field `tenent`"),
        ("[]", 400, "expected at least one event"),
        (
            "{\"id\":\"1\",\"id\":\"2\"}",
            422,
            "field `id`: expected once, found again",
        ),
    ];
    for (body, status, words) in cases {
        let (got, answer) = http(site.port, "POST", "/v1/events", &[JSON], body).unwrap();
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer.contains(words), "{answer}");
    }
}

#[test]
fn what_is_refused_as_a_whole_has_the_status_that_http_has_for_it() {
    let site = Site::embedded();
    let _host = site.serve();
    let good = event("acme", "invoice.paid", "evt_1", &json!({}));
    let many = format!("[{}]", vec![good.as_str(); 1001].join(","));
    let twice = "{\"tenant\":\"acme\",\"tenant\":\"acme\"}";
    let ndjson = "Content-Type: application/x-ndjson";
    for (headers, body, status, code) in [
        (
            &["Content-Type: text/xml"][..],
            &*good,
            "415",
            "unsupported_media_type",
        ),
        (
            &[JSON, "Content-Encoding: gzip"],
            &good,
            "415",
            "unsupported_content_encoding",
        ),
        (&[JSON], &many, "413", "too_many_events"),
        (&[JSON], "[{]", "400", "invalid_json"),
        (&[ndjson], twice, "422", "field `tenant`: expected once"),
        (
            &[JSON],
            &format!("[{twice}]"),
            "422",
            "field `tenant`: expected once",
        ),
    ] {
        let answer = exchange(site.port, "POST", "/v1/events", headers, body).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{status} {code}: {answer}"
        );
    }
    for (method, path, allowed) in [
        ("GET", "/v1/events", "post"),
        ("PUT", "/v1/events", "post"),
        ("DELETE", "/v1/plugins", "get,head"),
        ("POST", "/readyz", "get,head"),
    ] {
        let answer = exchange(site.port, method, path, &[], "").unwrap();
        let head = answer.to_lowercase();
        assert!(
            head.starts_with("http/1.1 405 "),
            "{method} {path}: {answer}"
        );
        assert!(
            head.contains(&format!("\r\nallow: {allowed}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("method_not_allowed"), "{answer}");
    }
    let answer = exchange(site.port, "GET", "/v1/event", &[], "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn an_entry_of_the_stream_with_a_misspelt_field_is_refused_and_not_sent_at_once() {
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    let pushed = |id: &str, field: [&str; 2]| {
        let entry = [
            "XADD",
            "wasmhook:events",
            "*",
            "tenant",
            "acme",
            "type",
            "invoice.paid",
            "id",
            id,
            "payload",
            "{}",
        ];
        redis_cli(redis.port(), &[&entry[..], &field[..]].concat());
    };
    pushed("misspelt", ["deliver-at", "2027-01-01T00:00:00Z"]);
    pushed("sound", ["occurred_at", "2026-01-01T00:00:00Z"]);
    receiver.wait_for_deliveries(1);
    let rejected = wait_for("the refused event", || {
        let rejected = site.json(&["events", "rejected"]);
        (rejected.as_array().unwrap().len() == 1).then_some(rejected)
    });
    assert_eq!(rejected[0]["event_id"], "misspelt", "{rejected}");
    let reason = rejected[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("unknown field `deliver-at`; expected id") && !reason.contains("2027"),
        "{reason}"
    );
    let deliveries = site.json(&["deliveries", "list", "--tenant", "acme"]);
    let deliveries = deliveries["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
}

#[test]
fn the_api_wants_its_token_once_there_is_one() {
    let site = Site::embedded();
    site.configure(|config| config.replace("[http]", "[http]\ntoken = \"0123456789abcdef\""));
    let _host = site.serve();
    let body = event("acme", "invoice.paid", "evt_1", &json!({}));
    let post = |headers: &[&str]| {
        http(site.port, "POST", "/v1/events", headers, &body)
            .unwrap()
            .0
    };
    assert_eq!(post(&[JSON]), 401);
    assert_eq!(post(&[JSON, "Authorization: Bearer 0123456789abcdeX"]), 401);
    assert_eq!(post(&[JSON, "Authorization: Bearer 0123456789abcdef"]), 202);
    // The command line takes the token from the same configuration.
    assert!(push_lines(&site, &stream_of(3)).status.success());
}

#[test]
fn xadd_is_all_a_producer_needs() {
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "invoice.paid");
    let _host = site.serve();
    for (kind, payload) in [
        ("invoice.paid", "{\"n\": 1}"),
        ("invoice.paid", "{not json"),
        ("invoice.lost", "{}"),
    ] {
        xadd(&redis, kind, payload, payload);
    }
    let arrived = receiver.wait_for_deliveries(1);
    assert_eq!(arrived[0]["body"], "{\"n\": 1}");
    let rejected = wait_for("the rejected events", || {
        let rejected = site.json(&["events", "rejected"]);
        (rejected.as_array().unwrap().len() == 2).then_some(rejected)
    });
    assert!(
        rejected
            .to_string()
            .contains("field `payload`: expected valid JSON"),
        "{rejected}"
    );
    wait_for("the stream to be emptied", || {
        (redis_cli(redis.port(), &["XLEN", "wasmhook:events"]).trim() == "0").then_some(())
    });
}

#[test]
fn what_is_refused_of_pushed_lines_is_named_by_its_line() {
    let site = Site::embedded();
    let _host = site.serve();
    let good = |id: &str| event("acme", "invoice.paid", id, &json!({}));
    let unknown = event("acme", "no.such", "3", &json!({}));
    let lines = format!("{}\n\n{{\"tenant\"\n{unknown}\n{}\n", good("1"), good("2"));
    let pushed = push_lines(&site, &lines);
    let told = String::from_utf8_lossy(&pushed.stderr);
    let told: Vec<Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!((&told[0]["line"], &told[1]["line"]), (&json!(3), &json!(4)));
    let words = "expected a JSON object, which ends being one at column 9";
    let error = told[0]["error"].as_str().unwrap();
    assert!(error.ends_with(words), "{error}");
}
