//! On a Redis Cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_core::{DeliveryState, EventDraft};
use wasmhook_store::conformance::{event, large_event, succeeded, to};
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream, Topology};
use wasmhook_store::{EventDeliveries, EventStream, Store, StoreError};
use wasmhook_testing::{Certificates, Durability, RedisCluster};

use crate::load::Load;
use crate::support::{PATIENCE, Shared, on_cluster, passes, request, until};

fn cluster() -> RedisCluster {
    RedisCluster::start(3, false, Durability::None).unwrap()
}

mod conformance {
    use super::*;

    static CLUSTER: Shared<RedisCluster> = Shared::new();

    async fn make() -> (Arc<RedisCluster>, Arc<dyn Store>) {
        let cluster = CLUSTER.get(cluster);
        let store = RedisStore::connect(on_cluster(&cluster)).await.unwrap();
        (cluster, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}

/// A tenant of this shard, of four.
fn tenant_of(shard: usize) -> String {
    let mut names = (0..).map(|n| format!("tenant{n}"));
    names.find(|name| shard_of(name) == shard).unwrap()
}

/// By CRC-32, which a unit test of the keys pins down.
fn shard_of(tenant: &str) -> usize {
    let mut crc = !0u32;
    for byte in tenant.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    usize::try_from(!crc).unwrap() % 4
}

/// The slot of a tenant's shard.
fn slot_of(cluster: &RedisCluster, config: &RedisConfig, tenant: &str) -> u16 {
    let shard = shard_of(tenant);
    cluster
        .slot(&format!("{{{}:{shard}}}:", config.prefix))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_on_the_move_waits_and_is_never_worked_on_in_halves() {
    let cluster = cluster();
    let config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let old = to(&event("acme", "evt_old"), &["main"]);
    store.enqueue(std::slice::from_ref(&old)).await.unwrap();
    let slot = slot_of(&cluster, &config, "acme");
    let goal = (cluster.owner(slot).unwrap() + 1) % 3;
    cluster.begin_move(slot, goal).unwrap();
    // Some keys are here, some there: everything would go wrong for who took one part for the whole.
    assert!(cluster.move_keys(slot, goal, 3).unwrap());
    let error = store.enqueue(std::slice::from_ref(&old)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let new = to(&event("acme", "evt_new"), &["main"]);
    let large = to(&large_event("acme", "evt_large", 1), &["main"]);
    let refused = async |item: &EventDeliveries| {
        let error = store.enqueue(std::slice::from_ref(item)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    };
    refused(&new).await;
    refused(&large).await;
    while cluster.move_keys(slot, goal, 100).unwrap() {}
    refused(&new).await;
    refused(&large).await;
    cluster.end_move(slot, goal).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), goal);

    let answers = until(|| store.enqueue(std::slice::from_ref(&old))).await;
    assert!(answers[0].duplicate, "the event is known as before");
    for new in [new, large] {
        let answers = until(|| store.enqueue(std::slice::from_ref(&new))).await;
        assert_eq!(answers[0].created, 1, "nothing of a refused call was done");
    }
    let ten = request(10);
    let leased = until(|| store.lease(&ten)).await.leased;
    assert_eq!(leased.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_on_the_move_holds_up_no_other() {
    let cluster = cluster();
    let config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let (moved, other) = (tenant_of(0), tenant_of(1));
    let slot = slot_of(&cluster, &config, &moved);
    cluster
        .begin_move(slot, (cluster.owner(slot).unwrap() + 1) % 3)
        .unwrap();
    let batch = store.lease(&request(10)).await.unwrap();
    assert!(batch.leased.is_empty());
    let due = batch.next_due.expect("the shard is asked again");
    assert!(due < Duration::from_secs(5), "{due:?}");
    for n in 0..5 {
        let refused = [to(&event(&moved, &format!("evt_{n}")), &["main"])];
        let error = store.enqueue(&refused).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let taken = [to(&event(&other, &format!("evt_{n}")), &["main"])];
        store.enqueue(&taken).await.unwrap();
        assert_eq!(store.lease(&request(10)).await.unwrap().leased.len(), 1);
    }
}

/// A master that does not answer, in two ways.
#[derive(Clone, Copy)]
enum Absent {
    Hangs,
    IsGone,
}

async fn holds_up_no_other(absent: Absent) {
    let mut cluster = cluster();
    for n in 0..cluster.nodes() {
        let words = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        let _: String = cluster.node(n).ask(&words).unwrap();
    }
    let config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let owner = |cluster: &RedisCluster, tenant: &str| {
        let slot = slot_of(cluster, &config, tenant);
        cluster.owner(slot).unwrap()
    };
    let lost = tenant_of(0);
    let victim = owner(&cluster, &lost);
    let others: Vec<_> = (1..4)
        .map(tenant_of)
        .filter(|tenant| owner(&cluster, tenant) != victim)
        .collect();
    assert!(!others.is_empty());
    match absent {
        Absent::Hangs => cluster.node(victim).pause().unwrap(),
        Absent::IsGone => cluster.node(victim).kill().unwrap(),
    }
    // One answer that is waited for takes ten seconds: there is time for a few of them.
    let start = Instant::now();
    let some = request(200);
    for n in 0..100 {
        let refused = [to(&event(&lost, &format!("evt_{n}")), &["main"])];
        let error = store.enqueue(&refused).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        for tenant in &others {
            let taken = [to(&event(tenant, &format!("evt_{n}")), &["main"])];
            until(|| store.enqueue(&taken)).await;
        }
        let mut leased = Vec::new();
        while leased.len() < others.len() {
            leased.extend(until(|| store.lease(&some)).await.leased);
        }
        let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
        for outcome in outcomes {
            until(|| store.record(std::slice::from_ref(&outcome))).await;
        }
        assert!(start.elapsed() < PATIENCE / 2, "the others wait");
    }
    store.fullness().await.unwrap();
    match absent {
        Absent::Hangs => cluster.node(victim).resume().unwrap(),
        Absent::IsGone => cluster.node(victim).restart().unwrap(),
    }
    let again = [to(&event(&lost, "evt_again"), &["main"])];
    until(|| store.enqueue(&again)).await;
    let mut leased = Vec::new();
    while leased.is_empty() {
        leased = until(|| store.lease(&some)).await.leased;
    }
    assert_eq!(leased[0].delivery.tenant_id.as_str(), lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_no_shard_of_others() {
    holds_up_no_other(Absent::Hangs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_gone_holds_up_no_shard_of_others() {
    holds_up_no_other(Absent::IsGone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_while_work_goes_on_even_to_a_node_without_functions() {
    let mut cluster = cluster();
    let config = on_cluster(&cluster);
    let load = Load::start(RedisStore::connect(config.clone()).await.unwrap());
    load.goes_on(50).await;
    cluster.add(Durability::None).unwrap();
    cluster.settle().unwrap();
    let goal = cluster.nodes() - 1;
    for shard in 0..4 {
        let slot = slot_of(&cluster, &config, &tenant_of(shard));
        cluster.begin_move(slot, goal).unwrap();
        while cluster.move_keys(slot, goal, 50).unwrap() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        cluster.end_move(slot, goal).unwrap();
        load.goes_on(50).await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_one_node_lost_come_back() {
    let mut cluster = cluster();
    let config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    for n in 0..cluster.nodes() {
        let () = cluster.node(n).ask(&["FUNCTION", "FLUSH"]).unwrap();
        let batch: Vec<_> = (0..4)
            .map(|shard| to(&event(&tenant_of(shard), &format!("evt_{n}")), &["main"]))
            .collect();
        let answers = store.enqueue(&batch).await.unwrap();
        assert!(answers.iter().all(|answer| answer.created == 1));
        assert_eq!(store.lease(&request(10)).await.unwrap().leased.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_by_its_replica_and_nothing_confirmed_is_lost() {
    let mut cluster = RedisCluster::start(3, true, Durability::None).unwrap();
    let mut config = on_cluster(&cluster);
    config.wait_replicas = 1;
    config.response_timeout = Duration::from_secs(5);
    let load = Load::start(RedisStore::connect(config.clone()).await.unwrap());
    load.goes_on(100).await;
    let slot = slot_of(&cluster, &config, "acme");
    let victim = cluster.owner(slot).unwrap();
    cluster.node(victim).kill().unwrap();
    let start = Instant::now();
    while cluster.owner(slot).is_err() {
        assert!(start.elapsed() < PATIENCE, "no replica is promoted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The replica has none any more: its old master must come back for writes to be confirmed.
    cluster.node(victim).restart().unwrap();
    load.goes_on(100).await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_any_node_wakes_a_host() {
    let mut cluster = cluster();
    let config = on_cluster(&cluster);
    let mine = RedisStore::connect(config.clone()).await.unwrap();
    let other = RedisStore::connect(config.clone()).await.unwrap();
    for n in 0..8 {
        while !mine.lease(&request(10)).await.unwrap().leased.is_empty() {}
        if n == 4 {
            // The connection that listens is cut, and made again.
            for node in 0..cluster.nodes() {
                let _: i64 = cluster
                    .node(node)
                    .ask(&["CLIENT", "KILL", "TYPE", "pubsub"])
                    .unwrap();
            }
        }
        let batch = [to(
            &event(&tenant_of(n % 4), &format!("evt_{n}")),
            &["main"],
        )];
        let start = Instant::now();
        let host = async {
            loop {
                mine.wait_for_work(Duration::from_secs(50)).await.unwrap();
                if !mine.lease(&request(10)).await.unwrap().leased.is_empty() {
                    break;
                }
            }
        };
        let producer = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.enqueue(&batch).await.unwrap();
        };
        tokio::join!(host, producer);
        assert!(start.elapsed() < Duration::from_secs(40), "slept through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_read_through_a_move_of_its_slot() {
    let cluster = cluster();
    let config = on_cluster(&cluster);
    let slot = cluster.slot(&config.stream).unwrap();
    let reader = RedisStream::connect(config.clone()).await.unwrap();
    let writer = RedisStream::connect(config.clone()).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        let events: Vec<_> = (0..3).map(|n| draft(round * 3 + n)).collect();
        // A read that waits already is answered.
        let reading = read(&reader, &mut seen, 3);
        let writing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            until(|| writer.push(&events)).await;
        };
        tokio::join!(reading, writing);
        let goal = (cluster.owner(slot).unwrap() + 1) % 3;
        cluster.begin_move(slot, goal).unwrap();
        while cluster.move_keys(slot, goal, 10).unwrap() {}
        // Between the move of the key and the end of that of the slot it is asked for.
        until(|| writer.push(std::slice::from_ref(&events[0]))).await;
        cluster.end_move(slot, goal).unwrap();
        read(&reader, &mut seen, 1).await;
    }
    let expected: Vec<_> = (0..3)
        .flat_map(|round| [0, 1, 2, 0].map(|n| format!("evt_{}", round * 3 + n)))
        .collect();
    assert_eq!(seen, expected);
}

fn draft(n: usize) -> EventDraft {
    EventDraft {
        id: format!("evt_{n}"),
        tenant: "acme".to_owned(),
        event_type: "a.b".to_owned(),
        payload: "{}".into(),
        ..EventDraft::default()
    }
}

/// Reads and acknowledges this many more.
async fn read(stream: &RedisStream, seen: &mut Vec<String>, more: usize) {
    let (goal, start) = (seen.len() + more, Instant::now());
    while seen.len() < goal {
        match stream.read(10, Duration::from_secs(5)).await {
            Ok(entries) => {
                let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
                until(|| stream.acknowledge(&ids)).await;
                seen.extend(entries.into_iter().map(|entry| entry.draft.id));
            }
            Err(error) => {
                assert!(passes(&error), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(start.elapsed() < PATIENCE, "nothing comes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_talk_tls_are_found_by_one_another() {
    let mut cluster = RedisCluster::start_tls(3, Certificates::make().unwrap()).unwrap();
    let mut config = on_cluster(&cluster);
    config.tls.ca = cluster.certificates().map(Certificates::ca);
    config.topology = Topology::Cluster(vec![cluster.urls().remove(0).into()]);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    let batch: Vec<_> = (0..4)
        .map(|shard| to(&event(&tenant_of(shard), "evt_1"), &["main"]))
        .collect();
    store.enqueue(&batch).await.unwrap();
    assert_eq!(store.lease(&request(10)).await.unwrap().leased.len(), 4);
    let stream = RedisStream::connect(config).await.unwrap();
    stream.push(&[draft(1)]).await.unwrap();
    read(&stream, &mut Vec::new(), 1).await;
    // Whoever came without TLS was the test itself.
    let mut plain = 0;
    for n in 0..cluster.nodes() {
        let clients: String = cluster.node(n).ask(&["CLIENT", "LIST"]).unwrap();
        let port = cluster.node(n).port();
        let here = format!("laddr=127.0.0.1:{port} ");
        plain += clients.lines().filter(|line| line.contains(&here)).count();
    }
    assert_eq!(plain, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_looked_at_for_settings_that_lose_data() {
    let mut cluster = RedisCluster::start(3, false, Durability::EverySecond).unwrap();
    let mut config = on_cluster(&cluster);
    let store = RedisStore::connect(config.clone()).await.unwrap();
    assert!(store.warnings().await.unwrap().is_empty());
    let port = cluster.node(1).port().to_string();
    let _: String = cluster
        .node(1)
        .ask(&["CONFIG", "SET", "appendonly", "no"])
        .unwrap();
    let warnings = store.warnings().await.unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&port), "{warnings:?}");
    config.wait_replicas = 1;
    let store = RedisStore::connect(config).await.unwrap();
    let warnings = store.warnings().await.unwrap();
    let lacks = |warning: &&String| warning.contains("has 0 replicas");
    assert_eq!(warnings.iter().filter(lacks).count(), 3, "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_living_seed_is_enough() {
    let cluster = cluster();
    let mut config = on_cluster(&cluster);
    let urls = ["redis://127.0.0.1:1".to_owned(), cluster.urls().remove(2)];
    config.topology = Topology::Cluster(urls.into_iter().map(Into::into).collect());
    let store = RedisStore::connect(config).await.unwrap();
    let batch: Vec<_> = (0..4)
        .map(|shard| to(&event(&tenant_of(shard), "evt_1"), &["main"]))
        .collect();
    store.enqueue(&batch).await.unwrap();
    for item in &batch {
        let id = &item.deliveries[0].id;
        let record = store.get(&item.event.tenant_id, id).await.unwrap().unwrap();
        assert_eq!(record.delivery.state, DeliveryState::Pending);
    }
    store.ping().await.unwrap();
}
