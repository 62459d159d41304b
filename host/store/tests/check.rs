//! Checks of the queue: sound after any work, each damage is found and mended, and work goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tempfile::TempDir;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{
    Conclusion, DeliveryId, DeliveryState, OnDeadLetter, OrderingKey, Sequence, TenantId,
};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_store::{
    CheckReport, CheckRequest, EventDeliveries, Filter, Finding, LeaseRequest, Leased, Outcome,
    Recorded, Retention, Store, StoreError,
};
use wasmhook_testing::RedisServer;

const LOOK: CheckRequest = CheckRequest {
    repair: false,
    gentle: false,
};
const REPAIR: CheckRequest = CheckRequest {
    repair: true,
    gentle: false,
};
const LONG: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(20);

async fn put(store: &dyn Store, tenant: &str, id: &str, endpoints: &[&str]) {
    let batch = [to(&event(tenant, id), endpoints)];
    assert_eq!(
        store.enqueue(&batch).await.unwrap()[0].created,
        endpoints.len()
    );
}

async fn take(store: &dyn Store, max: usize) -> Vec<Leased> {
    let request = LeaseRequest {
        max,
        duration: LONG,
        max_per_endpoint: 3,
    };
    store.lease(&request).await.unwrap().leased
}

fn end(leased: Leased, status: u16) -> Outcome {
    let now = Timestamp::now();
    let number = leased.delivery.attempt + 1;
    let attempt = Attempt::answered(number, now, Duration::ZERO, status);
    let conclusion = match status {
        204 => Conclusion::Succeeded,
        410 => Conclusion::DeadLetter,
        // 503 is due again at once, everything else much later.
        503 => Conclusion::Failed { next_at: now },
        _ => Conclusion::Failed {
            next_at: now + Duration::from_secs(3600),
        },
    };
    Outcome {
        delivery: leased.delivery.concluded(&attempt, conclusion, now),
        leased,
        attempt,
    }
}

async fn record(store: &dyn Store, outcome: Outcome) {
    let answers = store.record(&[outcome]).await.unwrap();
    assert_eq!(answers, [Recorded::Written]);
}

/// Deliveries in every state: per tenant three succeeded, three dead letters, three that wait for
/// long, six due and three leased, which fill an endpoint's places.
async fn fill(store: &dyn Store) -> Vec<Leased> {
    for tenant in ["acme", "globex"] {
        for n in 0..9 {
            put(store, tenant, &format!("evt_{n}"), &["main"]).await;
        }
    }
    for status in [204, 410, 500] {
        for leased in take(store, 6).await {
            record(store, end(leased, status)).await;
        }
    }
    for tenant in ["acme", "globex"] {
        for n in 9..18 {
            put(store, tenant, &format!("evt_{n}"), &["main"]).await;
        }
    }
    let held = take(store, 100).await;
    assert_eq!(held.len(), 6);
    held
}

/// An event of acme with a delivery to `main` in the sequence of the whole endpoint, which a dead letter
/// blocks.
fn in_order(n: usize) -> EventDeliveries {
    let mut item = to(&event("acme", &format!("evt_{n}")), &["main"]);
    item.deliveries[0].sequence = Some(Sequence {
        key: None,
        on_dead_letter: OnDeadLetter::Block,
        max_attempts: None,
    });
    item
}

/// Enqueues so many in one sequence; the first is leased.
async fn put_in_order(store: &dyn Store, count: usize) -> Vec<Leased> {
    let batch: Vec<_> = (0..count).map(in_order).collect();
    store.enqueue(&batch).await.unwrap();
    let held = take(store, 100).await;
    assert_eq!(held.len(), 1);
    assert_sound(store).await;
    held
}

/// Works a sequence off: each of these events comes once, and in order.
async fn drains_in_order(store: &dyn Store, mut batch: Vec<Leased>, expected: Range<usize>) {
    let start = Instant::now();
    for n in expected {
        while batch.is_empty() {
            assert!(start.elapsed() < PATIENCE, "evt_{n} does not come");
            batch = take(store, 100).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(batch.len(), 1);
        let leased = batch.remove(0);
        assert_eq!(leased.event.id.as_str(), format!("evt_{n}"));
        record(store, end(leased, 204)).await;
    }
    assert!(take(store, 100).await.is_empty());
    assert_sound(store).await;
}

fn counts(report: &CheckReport) -> BTreeMap<Finding, (u64, u64)> {
    let count = |(finding, found): (&Finding, &wasmhook_store::check::Found)| {
        (*finding, (found.count, found.repaired))
    };
    report.findings.iter().map(count).collect()
}

async fn assert_sound(store: &dyn Store) {
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Looks, repairs and looks again: `expected` is to be among what is found, everything is to be mended.
async fn finds_and_mends(store: &dyn Store, expected: Finding) -> CheckReport {
    let looked = store.check(LOOK).await.unwrap();
    let found = counts(&looked);
    assert!(
        found.contains_key(&expected),
        "{expected:?} is not in {found:?}"
    );
    assert!(found.values().all(|(_, repaired)| *repaired == 0));
    assert!(!looked.findings[&expected].examples.is_empty());
    let repaired = store.check(REPAIR).await.unwrap();
    let found = counts(&repaired);
    assert!(
        found.contains_key(&expected),
        "{expected:?} is not in {found:?}"
    );
    assert_eq!(repaired.left(), 0, "{:?}", repaired.findings);
    assert_sound(store).await;
    repaired
}

/// Works until nothing is open any more; fails when a delivery comes twice, or too few come.
async fn drains(store: &dyn Store, held: Vec<Leased>, expected: usize) {
    let mut seen = BTreeSet::new();
    let mut batch = held;
    let start = Instant::now();
    loop {
        for leased in batch {
            let name = (
                leased.delivery.tenant_id.clone(),
                leased.delivery.id.clone(),
            );
            assert!(seen.insert(name.clone()), "{name:?} came twice");
            record(store, end(leased, 204)).await;
        }
        if seen.len() == expected {
            break;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {expected} came",
            seen.len()
        );
        batch = take(store, 10).await;
        if batch.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(take(store, 10).await.is_empty());
    assert_sound(store).await;
}

/// Does random work; the seed is told when it fails.
async fn random_work(store: &dyn Store, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut held = Vec::new();
    for step in 0..200 {
        let pick = usize::try_from(random.next_u32()).unwrap();
        match pick % 8 {
            0..=2 => {
                let tenant = ["acme", "globex", "initech"][pick / 8 % 3];
                let endpoints = [&["a"][..], &["a", "b"], &["b", "c", "d"]][pick / 24 % 3];
                let mut item = to(&event(tenant, &format!("evt_{step}")), endpoints);
                if pick / 72 % 2 == 0 {
                    let names = ["", "x", "y"];
                    let sequence = Sequence {
                        key: OrderingKey::new(names[pick / 144 % 3]).ok(),
                        on_dead_letter: match pick / 432 % 3 {
                            0 => OnDeadLetter::Block,
                            _ => OnDeadLetter::Skip,
                        },
                        max_attempts: None,
                    };
                    for delivery in &mut item.deliveries {
                        delivery.sequence = Some(sequence.clone());
                    }
                }
                store.enqueue(&[item]).await.unwrap();
            }
            3 | 4 => held.extend(take(store, 1 + pick / 8 % 6).await),
            5 | 6 => {
                if let Some(leased) = held.pop() {
                    let status = [204, 410, 500, 503][pick / 8 % 4];
                    record(store, end(leased, status)).await;
                }
            }
            _ if pick / 8 % 4 == 0 => {
                let tenant = TenantId::new(["acme", "globex"][pick / 32 % 2]).unwrap();
                let dead = Filter {
                    tenant: tenant.clone(),
                    state: Some(DeliveryState::DeadLetter),
                    cursor: None,
                    limit: 100,
                };
                for record in store.list(&dead).await.unwrap().records {
                    let id = &record.delivery.id;
                    match store.skip(&tenant, id).await {
                        Ok(()) | Err(StoreError::NotBlocking(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    if pick / 64 % 2 == 0 {
                        store.replay(&tenant, id).await.unwrap();
                    }
                }
            }
            _ if pick / 8 % 2 == 0 => {
                store
                    .release(&held.split_off(held.len() / 2))
                    .await
                    .unwrap();
            }
            _ => {
                let retention = Retention {
                    age: LONG,
                    count: 5,
                };
                store.retain(&retention).await.unwrap();
            }
        }
    }
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "seed {seed}: {:?}", report.findings);
    assert!(report.looked.deliveries > 0);
}

/// Enqueues, leases and records while the store is repaired again and again: nothing may be found,
/// nothing may come twice and nothing may be lost.
async fn work_beside_repairs(store: Arc<dyn Store>) {
    const EVENTS: usize = 300;
    let done = Arc::new(AtomicBool::new(false));
    let repairing = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            let mut found = Vec::new();
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) || rounds < 3 {
                let report = store.check(REPAIR).await.unwrap();
                found.extend(report.findings);
                rounds += 1;
            }
            found
        })
    };
    let producing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..EVENTS {
                put(
                    store.as_ref(),
                    ["acme", "globex"][n % 2],
                    &format!("evt_{n}"),
                    &["a", "b"],
                )
                .await;
            }
        })
    };
    let working: Vec<_> = (0..3)
        .map(|worker| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            tokio::spawn(async move {
                let mut ended = Vec::new();
                let start = Instant::now();
                while !done.load(Ordering::SeqCst) {
                    assert!(start.elapsed() < 3 * PATIENCE, "the work does not end");
                    let mut batch = take(store.as_ref(), 2 + worker).await;
                    if batch.len() > 2 {
                        store.release(&batch.split_off(2)).await.unwrap();
                    }
                    for (n, leased) in batch.into_iter().enumerate() {
                        let name = (
                            leased.delivery.tenant_id.clone(),
                            leased.delivery.id.clone(),
                        );
                        let again = leased.delivery.attempt < 2 && n == 1;
                        record(store.as_ref(), end(leased, if again { 503 } else { 204 })).await;
                        if !again {
                            ended.push(name);
                        }
                    }
                    tokio::task::yield_now().await;
                }
                ended
            })
        })
        .collect();
    producing.await.unwrap();
    let start = Instant::now();
    while store.backlog().await.unwrap().succeeded < 2 * EVENTS as u64 {
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "{:?}",
            store.backlog().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, Ordering::SeqCst);
    let mut ended = Vec::new();
    for worker in working {
        ended.extend(worker.await.unwrap());
    }
    let distinct: BTreeSet<_> = ended.iter().cloned().collect();
    assert_eq!((ended.len(), distinct.len()), (2 * EVENTS, 2 * EVENTS));
    let found = repairing.await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert_sound(store.as_ref()).await;
}

mod redis_store {
    use super::*;
    use wasmhook_core::Event;

    const SHARD: &str = "{wasmhook:0}:";

    async fn make() -> (RedisServer, RedisStore, redis::aio::MultiplexedConnection) {
        let server = RedisServer::start().unwrap();
        let mut config = RedisConfig::new(server.url());
        config.shards = 1;
        let store = RedisStore::connect(config).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        (server, store, connection)
    }

    /// Does one thing by hand: the key is the shard's.
    async fn by_hand(
        connection: &mut redis::aio::MultiplexedConnection,
        name: &str,
        key: &str,
        more: &[&str],
    ) {
        let mut command = redis::cmd(name);
        command.arg(format!("{SHARD}{key}")).arg(more);
        let answer: redis::Value = command.query_async(connection).await.unwrap();
        // Damage that does none proves nothing.
        assert_ne!(answer, redis::Value::Int(0), "{name} {key} changed nothing");
    }

    fn id_of(tenant: &str, event_id: &str) -> String {
        to(&event(tenant, event_id), &["main"]).deliveries[0]
            .id
            .to_string()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_sound_after_random_work() {
        for seed in 0..4 {
            let (_server, store, _) = make().await;
            random_work(&store, seed).await;
        }
    }

    #[tokio::test]
    async fn an_empty_queue_and_a_full_one_are_sound() {
        let (_server, store, _) = make().await;
        assert_sound(&store).await;
        let held = fill(&store).await;
        let report = store.check(LOOK).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let looked = report.looked;
        assert_eq!((looked.deliveries, looked.open), (36, 24));
        assert_eq!((looked.due, looked.waiting, looked.leased), (12, 6, 6));
        drains(&store, held, 18).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn repairs_do_not_disturb_work() {
        let (_server, store, _) = make().await;
        work_beside_repairs(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn a_lost_ring_is_rebuilt() {
        for key in ["t", "r:acme"] {
            let (_server, store, mut connection) = make().await;
            let held = fill(&store).await;
            store.release(&held).await.unwrap();
            by_hand(&mut connection, "DEL", key, &[]).await;
            finds_and_mends(&store, Finding::Unserved).await;
            drains(&store, Vec::new(), 18).await;
        }
    }

    #[tokio::test]
    async fn a_lane_that_waits_for_a_place_that_nobody_frees_is_served_again() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        by_hand(&mut connection, "DEL", "b", &[]).await;
        finds_and_mends(&store, Finding::Unserved).await;
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn a_lost_lane_is_filled_again() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        by_hand(&mut connection, "DEL", "q:acme\0main", &[]).await;
        let report = finds_and_mends(&store, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 6);
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn lost_leases_are_put_back() {
        let (_server, store, mut connection) = make().await;
        fill(&store).await;
        by_hand(&mut connection, "DEL", "l", &[]).await;
        let report = finds_and_mends(&store, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 6);
        assert!(report.findings.contains_key(&Finding::InFlight));
        drains(&store, Vec::new(), 18).await;
    }

    #[tokio::test]
    async fn a_lost_waiting_set_is_filled_with_the_same_times() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let scheduled = Event {
            deliver_at: Some(Timestamp::from_millisecond(4_000_000_000_000).unwrap()),
            ..event("acme", "evt_scheduled")
        };
        store.enqueue(&[to(&scheduled, &["main"])]).await.unwrap();
        by_hand(&mut connection, "DEL", "w", &[]).await;
        let report = finds_and_mends(&store, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 7);
        drains(&store, held, 18).await;
        let due: Vec<(String, f64)> = redis::cmd("ZRANGE")
            .arg(format!("{SHARD}w"))
            .arg(&["0", "-1", "WITHSCORES"])
            .query_async(&mut connection)
            .await
            .unwrap();
        let acme = TenantId::new("acme").unwrap();
        assert_eq!(due.len(), 7);
        for (member, score) in due.iter().filter(|(member, _)| member.starts_with("acme")) {
            let id = DeliveryId::new(member.split('\0').next_back().unwrap()).unwrap();
            let kept = store.get(&acme, &id).await.unwrap().unwrap();
            #[allow(
                clippy::cast_precision_loss,
                reason = "milliseconds of our time are exact"
            )]
            let next_at = kept.delivery.next_at.as_millisecond() as f64;
            assert!((score - next_at).abs() < 1.0);
        }
    }

    /// The sequence of the whole endpoint `main` of acme.
    const SEQUENCE: &str = "g:acme\0main\0";

    #[tokio::test]
    async fn a_lost_sequence_is_put_together_again() {
        let (_server, store, mut connection) = make().await;
        let held = put_in_order(&store, 6).await;
        by_hand(&mut connection, "DEL", SEQUENCE, &[]).await;
        let report = finds_and_mends(&store, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 5);
        assert_eq!(report.findings[&Finding::Sequence].count, 1);
        drains_in_order(&store, held, 0..6).await;
    }

    #[tokio::test]
    async fn a_lost_sequence_whose_turn_was_due_is_put_together_again() {
        let (_server, store, mut connection) = make().await;
        let held = put_in_order(&store, 6).await;
        store.release(&held).await.unwrap();
        by_hand(&mut connection, "DEL", SEQUENCE, &[]).await;
        finds_and_mends(&store, Finding::Sequence).await;
        drains_in_order(&store, Vec::new(), 0..6).await;
    }

    #[tokio::test]
    async fn a_sequence_in_which_it_is_nobodys_turn_goes_on() {
        let (_server, store, mut connection) = make().await;
        let mut held = put_in_order(&store, 4).await;
        let first = held[0].delivery.id.to_string();
        // As if the record that ended the first had not let the next one go.
        record(&store, end(held.remove(0), 204)).await;
        let second = take(&store, 9).await.remove(0);
        by_hand(
            &mut connection,
            "ZREM",
            "l",
            &[&format!("acme\0{}", second.delivery.id)],
        )
        .await;
        by_hand(
            &mut connection,
            "ZREM",
            SEQUENCE,
            &[second.delivery.id.as_str()],
        )
        .await;
        by_hand(&mut connection, "ZADD", SEQUENCE, &["0", &first]).await;
        let report = finds_and_mends(&store, Finding::Sequence).await;
        assert_eq!(report.findings[&Finding::Lost].count, 1);
        drains_in_order(&store, Vec::new(), 1..4).await;
    }

    #[tokio::test]
    async fn only_one_of_a_sequence_has_its_turn() {
        let (_server, store, mut connection) = make().await;
        let held = put_in_order(&store, 5).await;
        // One goes out of turn, another stands in the lane while it waits for its turn.
        let third = in_order(2).deliveries[0].id.to_string();
        by_hand(&mut connection, "ZADD", SEQUENCE, &["CH", "0", &third]).await;
        by_hand(
            &mut connection,
            "RPUSH",
            "q:acme\0main",
            &[&format!("-{third}")],
        )
        .await;
        let fourth = in_order(3).deliveries[0].id.to_string();
        by_hand(
            &mut connection,
            "RPUSH",
            "q:acme\0main",
            &[&format!("-{fourth}")],
        )
        .await;
        let report = finds_and_mends(&store, Finding::Sequence).await;
        assert_eq!(report.findings[&Finding::Doubled].count, 1);
        drains_in_order(&store, held, 0..5).await;
    }

    #[tokio::test]
    async fn what_does_not_belong_in_a_sequence_leaves_it() {
        let (_server, store, mut connection) = make().await;
        let held = put_in_order(&store, 3).await;
        put(&store, "acme", "plain", &["main"]).await;
        let plain = id_of("acme", "plain");
        let members = ["9", "whdel_gone", "8", &plain];
        by_hand(&mut connection, "ZADD", SEQUENCE, &members).await;
        let moved = in_order(1).deliveries[0].id.to_string();
        by_hand(&mut connection, "ZADD", SEQUENCE, &["CH", "7", &moved]).await;
        let report = finds_and_mends(&store, Finding::Stray).await;
        assert_eq!(report.findings[&Finding::Stray].count, 3);
        let plain = take(&store, 9).await;
        assert_eq!(plain.len(), 1);
        store.release(&plain).await.unwrap();
        record(&store, end(take(&store, 9).await.remove(0), 204)).await;
        drains_in_order(&store, held, 0..3).await;
    }

    #[tokio::test]
    async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
        let (_server, store, mut connection) = make().await;
        let held = put_in_order(&store, 3).await;
        store.release(&held).await.unwrap();
        by_hand(&mut connection, "DEL", "e:acme\0evt_0", &[]).await;
        by_hand(&mut connection, "DEL", "e:acme\0evt_1", &[]).await;
        finds_and_mends(&store, Finding::EventMissing).await;
        drains_in_order(&store, Vec::new(), 2..3).await;
    }

    #[tokio::test]
    async fn what_is_in_two_places_is_in_one_again() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let leased = &held[0].delivery;
        let lane = format!("q:{}\0main\0", leased.tenant_id);
        let entry = format!("-{}", leased.id);
        by_hand(&mut connection, "RPUSH", &lane, &[&entry, &entry]).await;
        let due = format!("-{}", id_of("acme", "evt_17"));
        by_hand(&mut connection, "LPUSH", "q:acme\0main", &[&due]).await;
        let waiting = format!("acme\0main\0{}", id_of("acme", "evt_16"));
        by_hand(&mut connection, "ZADD", "w", &["1", &waiting]).await;
        let again = format!("-{}", id_of("acme", "evt_16"));
        by_hand(&mut connection, "RPUSH", "q:acme\0main", &[&again, &again]).await;
        let report = finds_and_mends(&store, Finding::Doubled).await;
        assert_eq!(report.findings[&Finding::Doubled].count, 3);
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn places_without_an_open_delivery_are_cleared() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let finished = id_of("acme", "evt_0");
        by_hand(
            &mut connection,
            "RPUSH",
            "q:acme\0main",
            &["-whdel_none", &format!("-{finished}")],
        )
        .await;
        by_hand(
            &mut connection,
            "RPUSH",
            "q:acme\0other",
            &["1790000000000000whdel_never"],
        )
        .await;
        by_hand(
            &mut connection,
            "ZADD",
            "w",
            &["1", "globex\0main\0whdel_gone"],
        )
        .await;
        by_hand(
            &mut connection,
            "ZADD",
            "l",
            &["9000000000000000", "globex\0whdel_gone"],
        )
        .await;
        let report = finds_and_mends(&store, Finding::Stray).await;
        assert!(report.findings[&Finding::Stray].count >= 4);
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn an_entry_in_the_lane_of_another_endpoint_is_moved() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let id = id_of("acme", "evt_17");
        let entries: Vec<String> = redis::cmd("LRANGE")
            .arg(format!("{SHARD}q:acme\0main"))
            .arg(&["0", "-1"])
            .query_async(&mut connection)
            .await
            .unwrap();
        let entry = entries.iter().find(|entry| entry.ends_with(&id)).unwrap();
        by_hand(&mut connection, "LREM", "q:acme\0main", &["0", entry]).await;
        by_hand(&mut connection, "RPUSH", "q:acme\0other", &[entry]).await;
        finds_and_mends(&store, Finding::Lost).await;
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn wrong_numbers_in_flight_are_counted_by_the_leases() {
        for (name, more) in [
            ("HSET", &["acme\0main", "7"][..]),
            ("HDEL", &["acme\0main"]),
        ] {
            let (_server, store, mut connection) = make().await;
            let held = fill(&store).await;
            let mut command = redis::cmd(name);
            command.arg(format!("{SHARD}n")).arg(more);
            command.exec_async(&mut connection).await.unwrap();
            finds_and_mends(&store, Finding::InFlight).await;
            drains(&store, held, 18).await;
        }
    }

    #[tokio::test]
    async fn wrong_counters_are_counted_by_the_records() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        let before = store.backlog().await.unwrap();
        by_hand(&mut connection, "HINCRBY", "k", &["o", "5"]).await;
        by_hand(&mut connection, "HINCRBY", "k", &["s", "-2"]).await;
        by_hand(&mut connection, "HDEL", "k", &["x"]).await;
        let report = finds_and_mends(&store, Finding::Counter).await;
        assert_eq!(report.findings[&Finding::Counter].count, 3);
        assert_eq!(store.backlog().await.unwrap(), before);
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn indexes_follow_the_records() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        by_hand(&mut connection, "DEL", "o:acme", &[]).await;
        by_hand(&mut connection, "DEL", "x:acme", &[]).await;
        by_hand(&mut connection, "SREM", "T", &["acme"]).await;
        let finished = id_of("globex", "evt_0");
        by_hand(
            &mut connection,
            "ZADD",
            "x:globex",
            &["1", "whdel_none", "2", &finished],
        )
        .await;
        let waiting = id_of("globex", "evt_6");
        by_hand(&mut connection, "ZADD", "o:globex", &["CH", "1", &waiting]).await;
        let report = finds_and_mends(&store, Finding::Index).await;
        assert!(report.findings[&Finding::Index].count >= 10);
        for state in [DeliveryState::Failed, DeliveryState::DeadLetter] {
            let page = store
                .list(&wasmhook_store::Filter {
                    tenant: TenantId::new("acme").unwrap(),
                    state: Some(state),
                    cursor: None,
                    limit: 10,
                })
                .await
                .unwrap();
            assert_eq!(page.records.len(), 3, "{state}");
        }
        assert_eq!(store.tenants().await.unwrap().len(), 2);
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn finished_deliveries_come_back_under_retention() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        by_hand(&mut connection, "DEL", "f:acme", &[]).await;
        let report = finds_and_mends(&store, Finding::Unretained).await;
        assert_eq!(report.findings[&Finding::Unretained].count, 6);
        let retention = Retention {
            age: Duration::ZERO,
            count: 0,
        };
        while store.retain(&retention).await.unwrap() > 0 {}
        let backlog = store.backlog().await.unwrap();
        assert_eq!((backlog.succeeded, backlog.dead_letter), (0, 0));
        drains(&store, held, 18).await;
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_left_alone() {
        let (_server, store, mut connection) = make().await;
        fill(&store).await;
        let key = format!("d:acme\0{}", id_of("acme", "evt_17"));
        by_hand(&mut connection, "SET", &key, &["of a version to come"]).await;
        let report = store.check(REPAIR).await.unwrap();
        assert_eq!(counts(&report)[&Finding::Unreadable], (1, 0));
        assert!(!report.findings.contains_key(&Finding::Stray));
        let kept: String = redis::cmd("GET")
            .arg(format!("{SHARD}{key}"))
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(kept, "of a version to come");
    }

    #[tokio::test]
    async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
        let (_server, store, mut connection) = make().await;
        let mut held = fill(&store).await;
        let lost = held.remove(0).delivery;
        for (tenant, event) in [
            ("acme", "evt_17"),
            (lost.tenant_id.as_str(), lost.event_id.as_str()),
        ] {
            let key = format!("e:{tenant}\0{event}");
            by_hand(&mut connection, "DEL", &key, &[]).await;
        }
        let report = finds_and_mends(&store, Finding::EventMissing).await;
        assert_eq!(report.findings[&Finding::EventMissing].count, 2);
        let acme = TenantId::new("acme").unwrap();
        let id = DeliveryId::new(id_of("acme", "evt_17")).unwrap();
        let kept = store.get(&acme, &id).await.unwrap().unwrap();
        assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
        let reason = kept.attempts[0].error.as_deref().unwrap();
        assert!(reason.contains("the event is gone"), "{reason}");
        drains(&store, held, 16).await;
    }

    #[tokio::test]
    async fn a_tenants_lost_list_is_told() {
        let (_server, store, mut connection) = make().await;
        let held = fill(&store).await;
        by_hand(&mut connection, "DEL", "i:acme", &[]).await;
        let report = store.check(REPAIR).await.unwrap();
        assert_eq!(
            counts(&report),
            BTreeMap::from([(Finding::Unlisted, (18, 0))])
        );
        assert_eq!(report.left(), 18);
        drop(held);
    }

    #[tokio::test]
    async fn a_long_lane_is_lost_and_found() {
        let (_server, store, mut connection) = make().await;
        for n in 0..40 {
            let batch: Vec<_> = (0..40)
                .map(|m| to(&event("acme", &format!("evt_{n}_{m}")), &["main"]))
                .collect();
            store.enqueue(&batch).await.unwrap();
        }
        assert_eq!(store.check(LOOK).await.unwrap().looked.due, 1600);
        by_hand(&mut connection, "LTRIM", "q:acme\0main", &["0", "99"]).await;
        let report = finds_and_mends(&store, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 1500);
        drains(&store, Vec::new(), 1600).await;
    }

    #[tokio::test]
    async fn one_host_checks_for_all() {
        let (server, first, _) = make().await;
        let mut config = RedisConfig::new(server.url());
        config.shards = 1;
        let second = RedisStore::connect(config).await.unwrap();
        assert!(first.claim_check(LONG).await.unwrap());
        assert!(!second.claim_check(LONG).await.unwrap());
        assert_sound(&second).await;
    }
}

mod embedded_store {
    use super::*;

    fn make() -> (TempDir, EmbeddedStore, rusqlite::Connection) {
        let folder = TempDir::new().unwrap();
        let store = EmbeddedStore::open(EmbeddedConfig {
            path: folder.path().to_owned(),
            host: true,
        })
        .unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("wasmhook.db")).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        (folder, store, connection)
    }

    async fn damaged(statement: &str, expected: Finding) -> CheckReport {
        let (_folder, store, connection) = make();
        let held = fill(&store).await;
        // Damage that does none proves nothing.
        assert!(
            connection.execute(statement, []).unwrap() > 0,
            "{statement}"
        );
        let report = finds_and_mends(&store, expected).await;
        drains(&store, held, 18).await;
        report
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_sound_after_random_work() {
        for seed in 0..4 {
            let (_folder, store, _) = make();
            random_work(&store, seed).await;
        }
    }

    #[tokio::test]
    async fn an_empty_queue_and_a_full_one_are_sound() {
        let (_folder, store, _) = make();
        assert_sound(&store).await;
        let held = fill(&store).await;
        let report = store.check(LOOK).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let looked = report.looked;
        assert_eq!((looked.deliveries, looked.open), (36, 24));
        assert_eq!((looked.due, looked.waiting, looked.leased), (12, 6, 6));
        drains(&store, held, 18).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn repairs_do_not_disturb_work() {
        let (_folder, store, _) = make();
        work_beside_repairs(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn a_lane_that_counts_nothing_is_served_again() {
        let (_folder, store, connection) = make();
        let held = fill(&store).await;
        store.release(&held).await.unwrap();
        let none = "UPDATE lanes SET ready = 0";
        assert_eq!(connection.execute(none, []).unwrap(), 2);
        finds_and_mends(&store, Finding::Counter).await;
        drains(&store, Vec::new(), 18).await;
    }

    #[tokio::test]
    async fn counts_follow_the_deliveries() {
        let counters = "UPDATE lanes SET ready = 0, delayed = 9, succeeded = 1, dead_letter = 0";
        damaged(counters, Finding::Counter).await;
        let more = "UPDATE lanes SET ready = ready + 2";
        damaged(more, Finding::Counter).await;
    }

    #[tokio::test]
    async fn an_open_delivery_at_no_stage_is_put_back() {
        let finished = "UPDATE deliveries SET stage = 3 WHERE stage = 0 AND seq % 2 = 0";
        damaged(finished, Finding::Lost).await;
    }

    #[tokio::test]
    async fn a_lease_in_the_file_is_put_back() {
        let leases = "UPDATE deliveries SET state = 1, stage = 2, back = 0 WHERE stage = 0";
        let report = damaged(leases, Finding::Lost).await;
        assert_eq!(report.findings[&Finding::Lost].count, 18);
    }

    #[tokio::test]
    async fn a_finished_delivery_is_not_sent_again() {
        let stray = "UPDATE deliveries SET stage = 0 WHERE state = 3";
        damaged(stray, Finding::Stray).await;
    }

    #[tokio::test]
    async fn in_a_sequence_it_is_the_turn_of_one() {
        for (statement, finding) in [
            // Nobody's, or that of all.
            (
                "UPDATE deliveries SET stage = 4 WHERE stage = 0",
                Finding::Sequence,
            ),
            (
                "UPDATE deliveries SET stage = 0 WHERE stage = 4",
                Finding::Sequence,
            ),
            // Finished by its stage, and not by its state.
            (
                "UPDATE deliveries SET stage = 3 WHERE seq IN (1, 3)",
                Finding::Lost,
            ),
            (
                "UPDATE deliveries SET stage = 5 WHERE seq IN (2, 3)",
                Finding::Lost,
            ),
        ] {
            let (_folder, store, connection) = make();
            let held = put_in_order(&store, 5).await;
            store.release(&held).await.unwrap();
            assert!(connection.execute(statement, []).unwrap() > 0);
            finds_and_mends(&store, finding).await;
            drains_in_order(&store, Vec::new(), 0..5).await;
        }
    }

    #[tokio::test]
    async fn a_delivery_whose_event_is_gone_holds_up_nobody() {
        let (_folder, store, connection) = make();
        let held = put_in_order(&store, 3).await;
        store.release(&held).await.unwrap();
        let gone = "DELETE FROM events WHERE id IN ('evt_0', 'evt_1')";
        assert_eq!(connection.execute(gone, []).unwrap(), 2);
        finds_and_mends(&store, Finding::EventMissing).await;
        drains_in_order(&store, Vec::new(), 2..3).await;
    }

    #[tokio::test]
    async fn an_event_with_deliveries_is_kept() {
        let bare = "UPDATE events SET bare = 1 WHERE seq % 2 = 0";
        damaged(bare, Finding::Index).await;
    }

    #[tokio::test]
    async fn a_delivery_whose_event_is_gone_is_a_dead_letter() {
        let (_folder, store, connection) = make();
        let held = fill(&store).await;
        // Not those of what is leased, which the file does not tell from what is due.
        let gone = "DELETE FROM events WHERE seq IN (SELECT event FROM deliveries WHERE stage = 0)
                        AND id NOT IN ('evt_9', 'evt_10', 'evt_11')";
        assert_eq!(connection.execute(gone, []).unwrap(), 12);
        finds_and_mends(&store, Finding::EventMissing).await;
        assert_eq!(store.backlog().await.unwrap().dead_letter, 6 + 12);
        drains(&store, held, 6).await;
    }

    #[tokio::test]
    async fn one_repair_runs_at_a_time() {
        let (folder, store, _) = make();
        let lock = std::fs::File::create(folder.path().join("wasmhook.repair")).unwrap();
        lock.lock().unwrap();
        let error = store.check(REPAIR).await.unwrap_err();
        assert!(error.to_string().contains("another repair"), "{error}");
        assert_sound(&store).await;
        lock.unlock().unwrap();
        assert!(store.check(REPAIR).await.unwrap().is_sound());
    }
}
