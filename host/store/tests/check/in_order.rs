//! A sequence, filled and worked off.

use std::ops::Range;
use std::time::{Duration, Instant};

use wasmhook_core::{OnDeadLetter, Sequence};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{EventDeliveries, Leased, Store};

use crate::steps::{PATIENCE, end, record, take};
use crate::verdict::assert_sound;

/// An event of acme with a delivery to `main` in the sequence of the whole endpoint, which a dead letter
/// blocks.
pub(crate) fn in_order(n: usize) -> EventDeliveries {
    let mut item = to(&event("acme", &format!("evt_{n}")), &["main"]);
    item.deliveries[0].sequence = Some(Sequence {
        key: None,
        on_dead_letter: OnDeadLetter::Block,
        max_attempts: None,
    });
    item
}

/// Enqueues so many in one sequence; the first is leased.
pub(crate) async fn put_in_order(store: &dyn Store, count: usize) -> Vec<Leased> {
    let batch: Vec<_> = (0..count).map(in_order).collect();
    store.enqueue(&batch).await.unwrap();
    let held = take(store, 100).await;
    assert_eq!(held.len(), 1);
    assert_sound(store).await;
    held
}

/// Works a sequence off: each of these events comes once, and in order.
pub(crate) async fn drains_in_order(
    store: &dyn Store,
    mut batch: Vec<Leased>,
    expected: Range<usize>,
) {
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
