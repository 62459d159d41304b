//! Hosts and Redis end, or lose something, and no event is lost.

use std::time::Duration;

use serde_json::json;
use wasmhook_testing::RedisServer;

use crate::events::{stream_of, xadd};
use crate::support::{Listener, Site, event, push_lines, redis_cli, wait_for};

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
    site.configure(|config| config.replace("timeout = \"5s\"", "timeout = \"1s\""));
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
fn a_lost_group_and_a_lost_stream_are_made_again_while_running() {
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    let push = |id: &str| xadd(&redis, "invoice.paid", id, "{}");
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
fn redis_going_away_is_said_once_and_survived() {
    let mut redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let host = site.serve();
    redis.stop().unwrap();
    std::thread::sleep(Duration::from_secs(3));
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
