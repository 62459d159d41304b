//! What a check says, and whether a queue still gives all that is in it, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use wasmhook_store::{CheckReport, Finding, Leased, Store};

use crate::steps::{LOOK, OPEN, PATIENCE, REPAIR, end, fill, record, take};

pub(crate) fn counts(report: &CheckReport) -> BTreeMap<Finding, (u64, u64)> {
    let count = |(finding, found): (&Finding, &wasmhook_store::check::Found)| {
        (*finding, (found.count, found.repaired))
    };
    report.findings.iter().map(count).collect()
}

pub(crate) async fn assert_sound(store: &dyn Store) {
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Looks at an empty queue and at a full one, which are sound, and works that off.
pub(crate) async fn counts_what_fills_it(store: &dyn Store) {
    assert_sound(store).await;
    let held = fill(store).await;
    let report = store.check(LOOK).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let looked = report.looked;
    assert_eq!((looked.deliveries, looked.open), (36, 24));
    assert_eq!((looked.due, looked.waiting, looked.leased), (12, 6, 6));
    drains(store, held, OPEN).await;
}

/// Looks, repairs and looks again: `expected` is to be among what is found, everything is to be mended.
pub(crate) async fn finds_and_mends(store: &dyn Store, expected: Finding) -> CheckReport {
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
pub(crate) async fn drains(store: &dyn Store, held: Vec<Leased>, expected: usize) {
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
