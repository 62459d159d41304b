//! More than a host or a queue takes.

use serde_json::json;
use wasmhook_testing::RedisServer;

use crate::events::xadd;
use crate::support::{JSON, Listener, Site, event, free_port, http, push, push_lines, wait_for};

#[test]
fn who_fills_the_host_leaves_a_place_for_a_tenant_with_its_first_event_on_redis() {
    let redis = RedisServer::start().unwrap();
    leave_a_place_for_a_first_event(&Site::redis(&redis.url()));
}

#[test]
fn who_fills_the_host_leaves_a_place_for_a_tenant_with_its_first_event_on_the_embedded_store() {
    leave_a_place_for_a_first_event(&Site::embedded());
}

fn leave_a_place_for_a_first_event(site: &Site) {
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Listener::start(204);
    let url = format!("http://{}/", silent.local_addr().unwrap());
    site.endpoint("globex", "main", &url, "*");
    site.endpoint("acme", "main", &receiver.url(), "*");
    site.configure(|config| {
        let config = config.replace("timeout = \"5s\"", "timeout = \"50s\"");
        format!("{config}\n[worker]\nconcurrency = 8\n")
    });
    let _host = site.serve();
    for n in 0..40 {
        push(site, "globex", &format!("evt_{n}"), &json!({}));
    }
    // Held open, or they would be failures.
    let mut open: Vec<_> = silent.incoming().take(7).collect();
    push(site, "acme", "evt_1", &json!({}));
    receiver.wait_for_deliveries(1);
    silent.set_nonblocking(true).unwrap();
    open.push(silent.accept().map(|(connection, _)| connection));
    let refused = open.pop().unwrap().unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::WouldBlock,
        "more than the places for all"
    );
    assert_eq!(open.len(), 7);
}

#[test]
fn dead_receivers_get_few_places_until_they_answer_on_redis() {
    let redis = RedisServer::start().unwrap();
    let site = Site::redis(&redis.url());
    give_few_places_to_the_dead(&site, || {
        let open = ["pending", "failed"].map(|state| site.deliveries("dead0", state));
        let delivery = open.into_iter().flatten().next().unwrap();
        let id = delivery["id"].as_str().unwrap();
        let shown = site.run(&["deliveries", "show", id]);
        let words = String::from_utf8_lossy(&shown.stdout);
        assert!(
            words.contains("its endpoint gives no answer in time"),
            "{words}"
        );
    });
}

#[test]
fn dead_receivers_get_few_places_until_they_answer_on_the_embedded_store() {
    give_few_places_to_the_dead(&Site::embedded(), || {});
}

/// `look` is called while they are dead.
fn give_few_places_to_the_dead(site: &Site, look: impl Fn()) {
    const DEAD: usize = 4;
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    for tenant in 0..DEAD {
        site.endpoint(&format!("dead{tenant}"), "main", &url, "*");
    }
    site.try_often();
    site.configure(|config| {
        let config = config.replace("timeout = \"5s\"", "timeout = \"300ms\"");
        format!("{config}\n[worker]\nconcurrency = 32\nmax_per_endpoint = 16\n")
    });
    let _host = site.serve();
    for tenant in 0..DEAD {
        let lines: Vec<_> = (0..40)
            .map(|n| {
                let (tenant, id) = (format!("dead{tenant}"), format!("evt_{n}"));
                event(&tenant, "invoice.paid", &id, &json!({}))
            })
            .collect();
        assert!(push_lines(site, &lines.join("\n")).status.success());
    }
    let gauge = |metrics: &str, name: &str| -> Option<usize> {
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    // One of each is still tried.
    wait_for("each dead receiver to have one place", || {
        let (_, metrics) = http(site.port, "GET", "/metrics", &[], "")?;
        let stalling = gauge(&metrics, "wasmhook_stalling_endpoints ")?;
        let leased = gauge(&metrics, "wasmhook_deliveries{state=\"leased\"} ")?;
        (stalling == DEAD && leased <= DEAD).then_some(())
    });
    look();
    let port = silent.local_addr().unwrap().port();
    drop(silent);
    let repaired = Listener::on(port, 204);
    repaired.wait_for_deliveries(DEAD * 40);
    wait_for("all of them to answer", || {
        let (_, metrics) = http(site.port, "GET", "/metrics", &[], "")?;
        (gauge(&metrics, "wasmhook_stalling_endpoints ")? == 0).then_some(())
    });
}

#[test]
fn a_full_queue_leaves_the_stream_alone_and_asks_pushes_to_come_back() {
    let redis = RedisServer::start().unwrap();
    let port = free_port();
    let site = Site::redis(&redis.url());
    // Nobody listens there yet.
    site.endpoint("acme", "main", &format!("http://127.0.0.1:{port}"), "*");
    site.configure(|config| {
        // Long enough to wait for the receiver.
        let waits = ["\"2s\""; 20].join(", ");
        let config = config.replace("\"200ms\", \"400ms\"", &waits);
        format!("{config}\n[intake]\nmax_waiting = 20\n")
    });
    let _host = site.serve();
    let pushed = |id: &str| {
        let body = event("acme", "invoice.paid", id, &json!({}));
        http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap()
    };
    for n in 0..20 {
        assert_eq!(pushed(&format!("first_{n}")).0, 202);
    }
    let answer = wait_for("pushes to be put off", || {
        let (status, answer) = pushed("too_much");
        (status == 429).then_some(answer)
    });
    assert!(
        answer.contains("deliveries wait, of 20 that may"),
        "{answer}"
    );
    let payload = json!({"n": 1}).to_string();
    xadd(&redis, "invoice.paid", "later", &payload);
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
    assert_eq!(pushed("afterwards").0, 202);
}
