//! The real binary against real Redis, real sockets and real components.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use serde_json::json;
use support::{Listener, SECRET, Site, component, http, push_lines, redis_cli, wait_for};
use wasmhook_testing::RedisServer;

const JSON: &str = "Content-Type: application/json";

fn event(tenant: &str, kind: &str, id: &str, payload: &serde_json::Value) -> String {
    json!({"tenant": tenant, "type": kind, "id": id, "payload": payload}).to_string()
}

fn stream_of(count: usize) -> String {
    (0..count)
        .map(|n| {
            event(
                "acme",
                "invoice.paid",
                &format!("evt_{n}"),
                &json!({"n": n, "card": "4242"}),
            ) + "\n"
        })
        .collect()
}

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
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
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
    ];
    for (body, status, words) in cases {
        let (got, answer) = http(site.port, "POST", "/v1/events", &[JSON], body).unwrap();
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer.contains(words), "{answer}");
    }
}

#[test]
fn the_api_wants_its_token_once_there_is_one() {
    let site = Site::embedded();
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    site.write(
        "wasmhook.toml",
        &config.replace("[http]", "[http]\ntoken = \"0123456789abcdef\""),
    );
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
        redis_cli(
            redis.port(),
            &[
                "XADD",
                "wasmhook:events",
                "*",
                "tenant",
                "acme",
                "type",
                kind,
                "id",
                payload,
                "payload",
                payload,
            ],
        );
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
fn a_lost_group_and_a_lost_stream_are_made_again_while_running() {
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    let push = |id: &str| {
        redis_cli(
            redis.port(),
            &[
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
            ],
        );
    };
    push("first");
    receiver.wait_for_deliveries(1);
    redis_cli(
        redis.port(),
        &["XGROUP", "DESTROY", "wasmhook:events", "wasmhook"],
    );
    push("second");
    receiver.wait_for_deliveries(2);
    redis_cli(redis.port(), &["DEL", "wasmhook:events"]);
    push("third");
    receiver.wait_for_deliveries(3);
    redis_cli(redis.port(), &["FUNCTION", "FLUSH"]);
    push("fourth");
    receiver.wait_for_deliveries(4);
}

#[test]
fn kill_9_in_the_middle_loses_nothing_on_redis() {
    let redis = RedisServer::start().unwrap();
    kill_9_loses_nothing(&Site::redis(&redis.url()));
}

#[test]
fn kill_9_in_the_middle_loses_nothing_on_the_embedded_store() {
    kill_9_loses_nothing(&Site::embedded());
}

fn kill_9_loses_nothing(site: &Site) {
    const EVENTS: usize = 2_000;
    let receiver = Listener::start(204);
    site.endpoint("acme", "main", &receiver.url(), "*");
    // Leases of a killed host end sooner with a short timeout.
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    site.write(
        "wasmhook.toml",
        &config.replace("timeout = \"5s\"", "timeout = \"1s\""),
    );
    let mut host = site.serve();
    let pushed = push_lines(site, &stream_of(EVENTS));
    assert!(
        pushed.status.success(),
        "{}",
        String::from_utf8_lossy(&pushed.stderr)
    );
    receiver.wait_for_deliveries(EVENTS / 10);
    host.kill();
    let _host = site.serve();
    receiver.wait_for_deliveries(EVENTS);
    wait_for("all deliveries to be recorded", || {
        (site.deliveries("acme", "succeeded").len() == EVENTS).then_some(())
    });
}

#[test]
fn a_plugin_replaced_during_a_stream_loses_and_fails_nothing() {
    const EVENTS: usize = 2_000;
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-shape",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    for round in 0..4 {
        let all = stream_of(EVENTS);
        let part: Vec<_> = all
            .lines()
            .skip(round * EVENTS / 4)
            .take(EVENTS / 4)
            .collect();
        let lines = part.join("\n");
        assert!(push_lines(&site, &lines).status.success());
        let next = if round % 2 == 0 {
            "tag_and_route.wasm"
        } else {
            "redact.wasm"
        };
        site.plugin(
            "acme",
            "10-shape",
            &component(next),
            "[config]\nfields = \"card\"\n",
        );
    }
    receiver.wait_for_deliveries(EVENTS);
    let succeeded = wait_for("all deliveries to be recorded", || {
        Some(site.deliveries("acme", "succeeded")).filter(|all| all.len() == EVENTS)
    });
    let failed: Vec<_> = succeeded
        .iter()
        .filter(|delivery| delivery["attempt"] != 1)
        .map(|d| &d["attempts"][0])
        .collect();
    assert!(
        failed.is_empty(),
        "{} attempts failed: {:?}",
        failed.len(),
        failed[0]
    );
}

#[test]
fn plugins_choose_the_endpoint_and_rewrite_the_payload() {
    let (eu, us) = (Listener::start(204), Listener::start(204));
    let site = Site::embedded();
    site.endpoint("acme", "eu", &eu.url(), "*");
    site.endpoint("acme", "us", &us.url(), "*");
    site.plugin(
        "acme",
        "10-route",
        &component("route.wasm"),
        "[config]\nfield = \"region\"\n",
    );
    site.plugin(
        "acme",
        "20-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    let line = event(
        "acme",
        "invoice.paid",
        "evt_1",
        &json!({"region": "eu", "card": "4242"}),
    );
    assert!(push_lines(&site, &line).status.success());
    let arrived = eu.wait_for_deliveries(1);
    assert_eq!(arrived[0]["verified"], true);
    let body: serde_json::Value =
        serde_json::from_str(arrived[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"region": "eu", "card": "[redacted]", "schema_version": "1"})
    );
    let delivery = wait_for("the record", || {
        site.deliveries("acme", "succeeded").into_iter().next()
    });
    let shown = site.json(&["deliveries", "show", delivery["id"].as_str().unwrap()]);
    let used = &shown["attempts"][0]["plugins"];
    assert_eq!(used[0]["name"], "20-redact");
    assert_eq!(used[0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(used[0]["verdict"], "deliver");
    assert_eq!(shown["resolver"]["verdict"], "resolve");
    assert!(us.arrived().is_empty());
}

#[test]
fn a_resolver_that_fails_holds_the_event_until_it_is_fixed() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "eu", &receiver.url(), "*");
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    let schedule = vec!["\"300ms\""; 60].join(",");
    site.write(
        "wasmhook.toml",
        &config.replace("\"200ms\", \"400ms\"", &schedule),
    );
    // An endpoint that does not exist: the answer is refused.
    site.plugin(
        "acme",
        "10-route",
        &component("route.wasm"),
        "[config]\nfield = \"region\"\n",
    );
    let _host = site.serve();
    let line = event("acme", "invoice.paid", "evt_1", &json!({"region": "mars"}));
    assert!(push_lines(&site, &line).status.success());
    let held = wait_for("the failed attempt", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(held["endpoint_id"], "(resolver)");
    assert_eq!(held["attempts"][0]["outcome"], "plugin_error");
    assert!(receiver.arrived().is_empty());
    site.write(
        "tenants/acme/plugins/10-route.toml",
        "[config]\nfield = \"region\"\n\"map.mars\" = \"eu\"\n",
    );
    receiver.wait_for_deliveries(1);
}

#[test]
fn events_do_not_pass_by_a_plugin_that_cannot_serve() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "eu", &receiver.url(), "*");
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    let schedule = vec!["\"300ms\""; 60].join(",");
    site.write(
        "wasmhook.toml",
        &config.replace("\"200ms\", \"400ms\"", &schedule),
    );
    let manifest = "[config]\nfield = \"region\"\n";
    site.write("tenants/acme/plugins/10-route.wasm", "no component at all");
    site.write("tenants/acme/plugins/10-route.toml", manifest);
    let _host = site.serve();
    let line = event("acme", "invoice.paid", "evt_1", &json!({"region": "eu"}));
    assert!(push_lines(&site, &line).status.success());
    let held = wait_for("the held event", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(held["endpoint_id"], "(resolver)");
    assert!(receiver.arrived().is_empty());
    site.plugin("acme", "10-route", &component("route.wasm"), manifest);
    receiver.wait_for_deliveries(1);
}

#[test]
fn a_failing_receiver_is_retried_then_dead_lettered_then_replayed() {
    let failing = Listener::start(503);
    let port = failing.port;
    let site = Site::embedded();
    site.endpoint("acme", "main", &failing.url(), "*");
    let _host = site.serve();
    assert!(
        push_lines(&site, &event("acme", "invoice.paid", "evt_1", &json!({})))
            .status
            .success()
    );
    let dead = wait_for("the dead letter", || {
        site.deliveries("acme", "dead_letter").into_iter().next()
    });
    let id = dead["id"].as_str().unwrap();
    let shown = site.json(&["deliveries", "show", id]);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt["status_code"] == 503 && attempt["error_class"] == "status")
    );
    assert!(attempts[0]["next_at"].is_string() && attempts[2]["next_at"].is_null());
    drop(failing);
    let repaired = Listener::on(port, 204);
    let missing = site.run(&["deliveries", "replay", "--tenant", "globex", id]);
    assert_eq!(missing.status.code(), Some(5), "{missing:?}");
    assert_eq!(
        site.json(&["deliveries", "replay", "--tenant", "acme", id])["replayed"][0],
        id
    );
    let arrived = repaired.wait_for_deliveries(1);
    assert_eq!(arrived[0]["id"], id);
    let done = wait_for("the success", || {
        site.deliveries("acme", "succeeded").into_iter().next()
    });
    assert_eq!(done["attempt"], 4);
}

#[test]
fn broken_components_leave_the_last_good_one_serving_and_say_why() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.plugin(
        "acme",
        "10-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let _host = site.serve();
    let good = std::fs::read(component("redact.wasm")).unwrap();
    for (bytes, words) in [
        (&good[..good.len() / 2], "the file is incomplete"),
        (&b"hello"[..], "the file is not WebAssembly"),
        (&b"\0asm\x01\0\0\0"[..], "core"),
    ] {
        std::fs::write(site.path("tenants/acme/plugins/10-redact.wasm"), bytes).unwrap();
        let listed = wait_for(words, || {
            let listed = site.json(&["plugins", "list"]);
            listed[0]["refused"]
                .as_str()
                .is_some_and(|reason| reason.contains(words))
                .then_some(listed)
        });
        assert_eq!(listed[0]["state"], "serving", "{listed}");
    }
    assert!(
        push_lines(
            &site,
            &event("acme", "invoice.paid", "evt_1", &json!({"card": "4242"}))
        )
        .status
        .success()
    );
    let arrived = receiver.wait_for_deliveries(1);
    assert!(
        arrived[0]["body"].as_str().unwrap().contains("[redacted]"),
        "{arrived:?}"
    );
}

#[test]
fn private_addresses_are_refused_unless_allowed() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    site.write(
        "wasmhook.toml",
        &config.replace(
            "allow_private_addresses = true",
            "allow_private_addresses = false",
        ),
    );
    let _host = site.serve();
    assert!(
        push_lines(&site, &event("acme", "invoice.paid", "evt_1", &json!({})))
            .status
            .success()
    );
    let failed = wait_for("the refusal", || {
        site.deliveries("acme", "failed").into_iter().next()
    });
    assert_eq!(failed["attempts"][0]["error_class"], "address_refused");
    assert!(receiver.arrived().is_empty());
}

#[test]
fn nothing_private_is_logged() {
    let receiver = Listener::start(503);
    let site = Site::embedded();
    site.endpoint(
        "acme",
        "main",
        &format!("{}?token=CANARY_QUERY", receiver.url()),
        "*",
    );
    site.plugin(
        "acme",
        "10-redact",
        &component("redact.wasm"),
        "[config]\nfields = \"card\"\n",
    );
    let mut host = site.serve();
    push_lines(
        &site,
        &event(
            "acme",
            "invoice.paid",
            "evt_1",
            &json!({"card": "CANARY_PAYLOAD"}),
        ),
    );
    http(
        site.port,
        "POST",
        "/v1/events",
        &[JSON],
        "{\"payload\": CANARY_PAYLOAD}",
    );
    wait_for("the dead letter", || {
        site.deliveries("acme", "dead_letter").into_iter().next()
    });
    host.stop();
    let log = host.log();
    assert!(
        log.contains("\"delivery\":\"whdel_") && log.contains("\"tenant\":\"acme\""),
        "{log}"
    );
    for private in ["CANARY_QUERY", "CANARY_PAYLOAD", SECRET, &SECRET[6..]] {
        assert!(!log.contains(private), "the log holds {private}");
    }
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_loses_nothing() {
    const EVENTS: usize = 500;
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let mut host = site.serve();
    assert!(push_lines(&site, &stream_of(EVENTS)).status.success());
    receiver.wait_for_deliveries(1);
    assert_eq!(host.stop(), Some(0), "{}", host.log());
    assert!(
        site.deliveries("acme", "leased").is_empty(),
        "leases were kept"
    );
    let mut host = site.serve();
    receiver.wait_for_deliveries(EVENTS);
    host.stop();
    assert_eq!(
        receiver.arrived().len(),
        EVENTS,
        "something was delivered twice"
    );
}

#[test]
fn redis_going_away_is_said_once_and_survived() {
    let mut redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let host = site.serve();
    redis.stop().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    redis.restart().unwrap();
    wait_for("events to be taken again", || {
        let pushed = push_lines(&site, &event("acme", "invoice.paid", "evt_1", &json!({})));
        pushed.status.success().then_some(())
    });
    receiver.wait_for_deliveries(1);
    let errors = host
        .log()
        .lines()
        .filter(|line| line.contains("\"level\":\"ERROR\""))
        .count();
    assert!(
        errors <= 4,
        "{errors} errors were logged for one outage: {}",
        host.log()
    );
}

#[test]
fn who_fills_the_host_leaves_a_place_for_a_tenant_with_its_first_event() {
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    let url = format!("http://{}/", silent.local_addr().unwrap());
    site.endpoint("globex", "main", &url, "*");
    site.endpoint("acme", "main", &receiver.url(), "*");
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    let config = config.replace("timeout = \"5s\"", "timeout = \"50s\"");
    site.write(
        "wasmhook.toml",
        &format!("{config}\n[worker]\nconcurrency = 8\n"),
    );
    let _host = site.serve();
    for n in 0..40 {
        let body = event("globex", "invoice.paid", &format!("evt_{n}"), &json!({}));
        let (status, _) = http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap();
        assert_eq!(status, 202);
    }
    wait_for("the host to be full", || {
        (site.deliveries("globex", "leased").len() >= 7).then_some(())
    });
    let body = event("acme", "invoice.paid", "evt_1", &json!({}));
    http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap();
    receiver.wait_for_deliveries(1);
    assert_eq!(site.deliveries("globex", "leased").len(), 7);
}

#[test]
fn a_full_queue_leaves_the_stream_alone_and_asks_pushes_to_come_back() {
    let redis = RedisServer::start().unwrap();
    let port = support::free_port();
    let site = Site::redis(&redis.url());
    // Nobody listens there yet.
    site.endpoint("acme", "main", &format!("http://127.0.0.1:{port}"), "*");
    let config = std::fs::read_to_string(site.path("wasmhook.toml")).unwrap();
    // Long enough to wait for the receiver.
    let waits = ["\"2s\""; 20].join(", ");
    let config = config.replace("\"200ms\", \"400ms\"", &waits);
    site.write(
        "wasmhook.toml",
        &format!("{config}\n[intake]\nmax_waiting = 20\n"),
    );
    let _host = site.serve();
    let push = |id: &str| {
        let body = event("acme", "invoice.paid", id, &json!({}));
        http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap()
    };
    for n in 0..20 {
        assert_eq!(push(&format!("first_{n}")).0, 202);
    }
    let answer = wait_for("pushes to be put off", || {
        let (status, answer) = push("too_much");
        (status == 429).then_some(answer)
    });
    assert!(
        answer.contains("deliveries wait, of 20 that may"),
        "{answer}"
    );
    let payload = json!({"n": 1}).to_string();
    let pushed = [
        "XADD",
        "wasmhook:events",
        "*",
        "tenant",
        "acme",
        "type",
        "invoice.paid",
        "id",
        "later",
        "payload",
        &payload,
    ];
    redis_cli(redis.port(), &pushed);
    let (_, metrics) = http(site.port, "GET", "/metrics", &[], "").unwrap();
    assert!(metrics.contains("wasmhook_queue_full 1"), "{metrics}");

    // What waits goes out once there is a receiver, and then what was left in the stream.
    let receiver = Listener::on(port, 204);
    wait_for("what was left in the stream to arrive", || {
        let arrived = receiver.arrived();
        arrived
            .iter()
            .any(|request| request["body"] == payload.as_str())
            .then_some(())
    });
    assert_eq!(push("afterwards").0, 202);
}
