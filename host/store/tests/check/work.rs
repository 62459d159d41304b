//! Work that leaves a queue sound: random, and beside repairs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use wasmhook_core::{DeliveryState, OnDeadLetter, OrderingKey, Sequence, TenantId};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{Filter, Retention, Store, StoreError};

use crate::steps::{LONG, LOOK, PATIENCE, REPAIR, end, put, record, take};
use crate::verdict::assert_sound;

/// Does random work; the seed is told when it fails.
pub(crate) async fn random_work(store: &dyn Store, seed: u64) {
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
pub(crate) async fn work_beside_repairs(store: Arc<dyn Store>) {
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
