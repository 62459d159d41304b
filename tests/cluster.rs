//! The real binary on a Redis Cluster whose masters fail one by one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Listener, Site, event, http, push_lines_with, wait_for};
use wasmhook_testing::{Answer, Durability, Receiver, RedisCluster};

const STREAM: &str = "wasmhook:events";
const SHARDS: usize = 4;

/// A tenant of this shard, by CRC-32, which a unit test of the store pins down.
fn tenant_of(shard: usize) -> String {
    let shard_of = |tenant: &str| {
        let mut crc = !0u32;
        for byte in tenant.bytes() {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
            }
        }
        usize::try_from(!crc).unwrap() % SHARDS
    };
    let mut names = (0..).map(|n| format!("tenant{n}"));
    names.find(|name| shard_of(name) == shard).unwrap()
}

/// A cluster of which one master can be away while the others work.
struct Stage {
    cluster: RedisCluster,
    /// Shard and master of the tenants, and who has the stream.
    lost: (usize, usize),
    other: (usize, usize),
    stream: usize,
}

impl Stage {
    fn set() -> Self {
        let mut cluster = RedisCluster::start(3, false, Durability::None).unwrap();
        for n in 0..cluster.nodes() {
            let words = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
            let _: String = cluster.node(n).ask(&words).unwrap();
        }
        let owner = |key: &str| cluster.owner(cluster.slot(key).unwrap()).unwrap();
        let stream = owner(STREAM);
        let shards: Vec<_> = (0..SHARDS)
            .map(|shard| (shard, owner(&format!("{{wasmhook:{shard}}}:"))))
            .collect();
        let lost = *shards.iter().find(|(_, node)| *node != stream).unwrap();
        let other = *shards.iter().find(|(_, node)| *node != lost.1).unwrap();
        Self {
            cluster,
            lost,
            other,
            stream,
        }
    }

    fn push(&mut self, tenant: &str, ids: std::ops::Range<usize>) {
        for id in ids {
            let id = format!("evt_{id}");
            let words = ["XADD", STREAM, "*", "tenant", tenant, "id", &id];
            let more = ["type", "invoice.paid", "payload", "{}"];
            let words = [&words[..], &more[..]].concat();
            let _: String = self.cluster.node(self.stream).ask(&words).unwrap();
        }
    }

    /// Waits until so many deliveries of a shard are recorded as succeeded.
    fn wait_for_recorded(&mut self, (shard, node): (usize, usize), count: usize) {
        let key = format!("{{wasmhook:{shard}}}:k");
        wait_for(&format!("{count} records in shard {shard}"), || {
            let recorded: Option<usize> =
                self.cluster.node(node).ask(&["HGET", &key, "s"]).unwrap();
            (recorded == Some(count)).then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_only_its_own_events_and_nothing_is_lost() {
    let mut stage = Stage::set();
    let (lost, other) = (tenant_of(stage.lost.0), tenant_of(stage.other.0));
    let receiver = Receiver::start().await.unwrap();
    let site = Site::cluster(&stage.cluster.urls());
    site.endpoint(&lost, "main", &receiver.url("/lost"), "*");
    site.endpoint(&other, "main", &receiver.url("/other"), "*");
    let arrived = |path: &str| {
        let mut ids: Vec<_> = receiver
            .received()
            .iter()
            .filter(|request| request.path == path)
            .map(|request| request.header("webhook-id").unwrap().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        ids.len()
    };
    let mut host = site.serve();

    // The outcomes of both come in together while one master hangs.
    receiver.always(Answer::default().after(Duration::from_secs(2)));
    for n in 0..20 {
        stage.push(&lost, n..n + 1);
        stage.push(&other, n..n + 1);
    }
    wait_for("all to be under way", || {
        (arrived("/lost") + arrived("/other") == 40).then_some(())
    });
    let victim = stage.lost.1;
    stage.cluster.node(victim).pause().unwrap();
    receiver.always(Answer::default());
    stage.wait_for_recorded(stage.other, 20);

    // So do new events.
    for n in 20..220 {
        stage.push(&lost, n..n + 1);
        stage.push(&other, n..n + 1);
    }
    stage.wait_for_recorded(stage.other, 220);
    assert_eq!(arrived("/lost"), 20);

    stage.cluster.node(victim).resume().unwrap();
    stage.wait_for_recorded(stage.lost, 220);
    assert_eq!((arrived("/lost"), arrived("/other")), (220, 220));
    let node = stage.stream;
    wait_for("the stream to be empty", || {
        let left: usize = stage.cluster.node(node).ask(&["XLEN", STREAM]).unwrap();
        (left == 0).then_some(())
    });
    assert_eq!(host.stop(), Some(0), "{}", host.log());
}

/// A producer that waits for answers is told which of its events are durable, and may repeat them all.
#[test]
fn a_batch_of_which_a_shard_is_away_is_durable_in_part_and_whole_once_it_is_repeated() {
    let mut stage = Stage::set();
    let (lost, other) = (tenant_of(stage.lost.0), tenant_of(stage.other.0));
    let receiver = Listener::start(204);
    let site = Site::cluster(&stage.cluster.urls());
    for tenant in [&lost, &other] {
        site.endpoint(tenant, "main", &receiver.url(), "*");
    }
    let _host = site.serve();
    let events = [(&other, "evt_1"), (&lost, "evt_1"), (&other, "evt_2")];
    let line = |(tenant, id): (&String, &str)| event(tenant, "invoice.paid", id, &json!({})) + "\n";
    let batch: String = events.map(line).concat();
    let push = || {
        let lines = "Content-Type: application/x-ndjson";
        let (status, answer) = http(site.port, "POST", "/v1/events", &[lines], &batch).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let results = answer["results"].as_array().cloned().unwrap_or_default();
        let results: Vec<_> = results.iter().map(|one| one["status"].clone()).collect();
        (status, results)
    };
    let victim = stage.lost.1;
    stage.cluster.node(victim).pause().unwrap();
    assert_eq!(
        push(),
        (
            503,
            vec![json!("enqueued"), json!("unavailable"), json!("enqueued")]
        )
    );
    stage.wait_for_recorded(stage.other, 2);
    let url = format!("http://127.0.0.1:{}", site.port);
    let pushed = push_lines_with(&site, &["--to", &url], &batch);
    let told = String::from_utf8_lossy(&pushed.stderr);
    assert_eq!(pushed.status.code(), Some(4), "{told}");
    assert!(
        told.contains("of 3 events 1 could not be taken in"),
        "{told}"
    );

    stage.cluster.node(victim).resume().unwrap();
    let results = wait_for("the batch to be taken in", || {
        let (status, results) = push();
        (status == 202).then_some(results)
    });
    assert_eq!(
        (&results[0], &results[2]),
        (&json!("duplicate"), &json!("duplicate"))
    );
    stage.wait_for_recorded(stage.lost, 1);
    assert_eq!(
        receiver.wait_for_deliveries(3).len(),
        3,
        "none went out twice"
    );
}
