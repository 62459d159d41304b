//! Hosts and Redis end, or lose something, and no event is lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;
use wasmhook_testing::RedisServer;

use crate::events::{stream_of, xadd};
use crate::support::{
    Host, JSON, Listener, PATIENCE, Site, event, http, push, push_lines, redis_cli, wait_for,
};

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
fn a_stop_while_redis_writes_nothing_waits_for_it_and_records_what_was_accepted() {
    let redis = RedisServer::start().unwrap();
    let receiver = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let site = Site::redis(&redis.url());
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    site.endpoint("acme", "main", &url, "*");
    let mut host = site.serve();
    push(&site, "acme", "evt_1", &json!({}));
    let (mut connection, _) = receiver.accept().unwrap();
    // An answer that comes before the request is none.
    assert!(connection.read(&mut [0; 1024]).unwrap() > 0);
    let replicas = |wanted: &str| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", wanted];
        redis_cli(redis.port(), &set);
    };
    replicas("1");
    connection
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    wait_for("the host to notice", || {
        host.log().contains("record attempts").then_some(())
    });
    host.signal("-TERM");
    std::thread::sleep(Duration::from_secs(2));
    replicas("0");
    let ended = wait_for("the host to stop", || host.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "{}", host.log());
    assert_eq!(site.deliveries("acme", "succeeded").len(), 1);
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
    let (_, metrics) = http(site.port, "GET", "/metrics", &[], "").unwrap();
    let counted = "wasmhook_store_failures_total{task=\"read the event stream\"} ";
    assert!(metrics.contains(counted), "{metrics}");
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
fn a_host_whose_redis_does_not_answer_at_its_start_says_that_it_lives_until_it_gives_up() {
    // The kernel takes connections for it, and nobody reads them.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = Site::redis(&format!("redis://{}", mute.local_addr().unwrap()));
    site.configure(|config| config.replace("connect_timeout = \"2s\"", "connect_timeout = \"8s\""));
    let mut serving = site.command(&["serve"]);
    let host = serving.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the host to live", || {
        let (status, _) = http(site.port, "GET", "/healthz", &[], "")?;
        (status == 200).then_some(())
    });
    let body = event("acme", "invoice.paid", "evt_1", &json!({}));
    for (method, path, body) in [("GET", "/readyz", ""), ("POST", "/v1/events", &body)] {
        let (status, answer) = http(site.port, method, path, &[JSON], body).unwrap();
        assert_eq!(status, 503, "{path}: {answer}");
        assert!(answer.contains(r#""code":"starting""#), "{path}: {answer}");
    }
    let ended = host.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(4), "{said}");
    assert!(said.contains("is not reachable"), "{said}");
    assert!(http(site.port, "GET", "/healthz", &[], "").is_none());
}

#[test]
fn a_redis_that_hangs_is_told_within_seconds_and_nothing_is_lost() {
    let redis = RedisServer::start().unwrap();
    let receiver = Listener::start(204);
    let site = Site::redis(&redis.url());
    site.endpoint("acme", "main", &receiver.url(), "*");
    let _host = site.serve();
    redis.pause().unwrap();
    let asked = Instant::now();
    let (status, answer) = http(site.port, "GET", "/readyz", &[], "").unwrap();
    let took = asked.elapsed();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("has not answered within 1s"), "{answer}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(http(site.port, "GET", "/healthz", &[], "").unwrap().0, 200);
    let body = event("acme", "invoice.paid", "evt_1", &json!({}));
    let asked = Instant::now();
    let (status, answer) = http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap();
    let took = asked.elapsed();
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("store_unavailable"), "{answer}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    redis.resume().unwrap();
    wait_for("the host to be ready again", || {
        let (status, _) = http(site.port, "GET", "/readyz", &[], "")?;
        (status == 200).then_some(())
    });
    // As the answer asks for.
    push(&site, "acme", "evt_1", &json!({}));
    wait_for("the delivery", || {
        (site.deliveries("acme", "succeeded").len() == 1).then_some(())
    });
    let all = site.json(&["deliveries", "list", "--tenant", "acme"]);
    assert_eq!(all["deliveries"].as_array().unwrap().len(), 1, "{all}");
}

#[test]
fn a_user_of_redis_that_loses_a_permission_gets_no_event_acknowledged_that_is_lost() {
    let redis = RedisServer::start().unwrap();
    let user = |rules: &[&str]| {
        redis_cli(
            redis.port(),
            &[&["ACL", "SETUSER", "queue"], rules].concat(),
        );
    };
    user(&["on", ">hunter2", "~*", "&*", "+@all"]);
    let receiver = Listener::start(204);
    let site = Site::redis(&format!("redis://queue:hunter2@127.0.0.1:{}", redis.port()));
    site.endpoint("acme", "main", &receiver.url(), "*");
    let mut host = site.serve();
    push(&site, "acme", "before", &json!({}));
    receiver.wait_for_deliveries(1);
    user(&["-fcall"]);
    wait_for_refusals_then(&site, &receiver, &mut host, || user(&["+fcall"]));
    assert!(!host.log().contains("hunter2"));
}

#[test]
fn a_disk_that_cannot_be_written_to_gets_no_event_acknowledged_that_is_lost() {
    let receiver = Listener::start(204);
    let site = Site::embedded();
    site.endpoint("acme", "main", &receiver.url(), "*");
    let mut host = site.serve();
    push(&site, "acme", "before", &json!({}));
    receiver.wait_for_deliveries(1);
    let id = i32::try_from(host.child.id()).unwrap();
    let limit = |bytes: Option<u64>| {
        let files = Rlimit {
            current: bytes,
            maximum: None,
        };
        rustix::process::prlimit(Pid::from_raw(id), Resource::Fsize, files).unwrap();
    };
    limit(Some(0));
    wait_for_refusals_then(&site, &receiver, &mut host, || limit(None));
}

/// The host says that it takes nothing in, and after the repair does so again, without a restart: what it
/// acknowledged arrives, and it acknowledges nothing else.
fn wait_for_refusals_then(
    site: &Site,
    receiver: &Listener,
    host: &mut Host,
    repair: impl FnOnce(),
) {
    let pushed = |id: &str| {
        let body = event("acme", "invoice.paid", id, &json!({ "id": id }));
        http(site.port, "POST", "/v1/events", &[JSON], &body).unwrap()
    };
    for n in 0..3 {
        let (status, answer) = pushed(&format!("evt_{n}"));
        assert_eq!(status, 503, "{answer}");
        assert!(answer.contains("store_unavailable"), "{answer}");
    }
    repair();
    for n in 0..3 {
        let id = format!("evt_{n}");
        wait_for("events to be taken again", || {
            (pushed(&id).0 == 202).then_some(())
        });
    }
    receiver.wait_for_deliveries(4);
    wait_for("all deliveries to be recorded", || {
        (site.deliveries("acme", "succeeded").len() == 4).then_some(())
    });
    assert_eq!(host.stop(), Some(0), "{}", host.log());
}

#[test]
fn half_a_request_is_given_up_and_does_not_hold_up_a_stop() {
    let site = Site::embedded();
    site.configure(|config| format!("{config}\n[worker]\ngrace = \"1s\"\n"));
    let mut host = site.serve();
    let begun = |half: &str| {
        let mut client = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(half.as_bytes()).unwrap();
        client
    };
    let head = "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n";
    let half_a_body = format!("{head}\r\n{{\"tenant\":");
    // Half a minute, by the README.
    let mut answer = String::new();
    begun(&half_a_body).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("slow_body"), "{answer}");
    let _open = [begun(&half_a_body), begun(head), begun("")];
    // They have to be with the host before the signal.
    assert_eq!(http(site.port, "GET", "/healthz", &[], "").unwrap().0, 200);
    let told = Instant::now();
    assert_eq!(host.stop(), Some(0), "{}", host.log());
    let took = told.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}
