//! Promises about how many deliveries of an endpoint or a tenant are in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_core::DeliveryState;

use super::Subject;
use super::steps::{
    LONG, PATIENCE, SHORT, await_work, dead, failed, flood, limit, list, succeeded, take, take_one,
    take_with, tenant, unanswered, written,
};
use crate::queue::{Leased, Recorded};

/// No more than the limit is in flight for one endpoint, and each end of a lease makes room.
pub async fn an_endpoint_has_a_limit_in_flight(store: Subject) {
    flood(&store, "acme", "main", 20).await;
    flood(&store, "acme", "other", 2).await;
    let (others, mut held): (Vec<_>, Vec<_>) = take_with(&store, 10, LONG, 3)
        .await
        .leased
        .into_iter()
        .partition(|l| l.delivery.endpoint_id.as_str() == "other");
    assert_eq!((held.len(), others.len()), (3, 2));
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());

    written(&store, succeeded(held.pop().unwrap())).await;
    let more = take_with(&store, 10, LONG, 3).await.leased;
    assert_eq!(more.len(), 1, "a record makes room");
    held.extend(more);
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());

    written(&store, failed(held.pop().unwrap(), LONG)).await;
    written(&store, dead(held.pop().unwrap())).await;
    let more = take_with(&store, 10, SHORT, 3).await.leased;
    assert_eq!(more.len(), 2);
    store.release(&held).await.unwrap();
    held = take_with(&store, 1, LONG, 3).await.leased;
    assert_eq!(held.len(), 1, "a release makes room");

    // The two short leases expire.
    let start = Instant::now();
    let mut after = 0;
    while after < 2 {
        after += take_with(&store, 10, LONG, 3).await.leased.len();
        assert!(start.elapsed() < PATIENCE, "expiry made no room");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(after, 2);
    assert!(take_with(&store, 10, LONG, 3).await.leased.is_empty());
}

/// How many can be leased of an endpoint, where any may have 256, over as many calls as that takes. They are given
/// back.
async fn room(store: &Subject) -> usize {
    let mut held = Vec::new();
    loop {
        let more = take_with(store, 100, LONG, 256).await.leased;
        if more.is_empty() {
            break;
        }
        held.extend(more);
    }
    store.release(&held).await.unwrap();
    held.len()
}

/// Records that these got no answer in time.
async fn stalled(store: &Subject, leased: impl IntoIterator<Item = Leased>) {
    let outcomes: Vec<_> = leased.into_iter().map(unanswered).collect();
    let answers = store.record(&outcomes).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Recorded::Written));
}

/// Every four attempts that an endpoint leaves without an answer halve what it may have in flight, down to a 128th,
/// and each answer doubles it. Others are not concerned.
pub async fn an_endpoint_that_stalls_has_few_in_flight_until_it_answers(store: Subject) {
    flood(&store, "acme", "main", 400).await;
    let mut held = take_with(&store, 28, LONG, 256).await.leased;
    let mut one = take_with(&store, 1, LONG, 256).await.leased;
    let answering = take_with(&store, 7, LONG, 256).await.leased;
    stalled(&store, held.drain(..3)).await;
    assert_eq!(room(&store).await, 256 - 33, "three are no reason");
    stalled(&store, held.drain(..1)).await;
    assert_eq!(room(&store).await, 128 - 32);
    stalled(&store, held.drain(..12)).await;
    assert_eq!(room(&store).await, 0, "twenty are more than sixteen");
    stalled(&store, held).await;
    assert_eq!(room(&store).await, 0, "eight are more than two");
    assert_eq!(store.backlog().await.unwrap().stalling_endpoints, 1);
    let one_of = async || {
        let pending = list(&store, "acme", Some(DeliveryState::Pending), 1).await;
        let id = pending[0].delivery.id.clone();
        store.get(&tenant("acme"), &id).await.unwrap().unwrap()
    };
    assert!(one_of().await.endpoint_stalls);

    flood(&store, "acme", "other", 40).await;
    flood(&store, "globex", "main", 40).await;
    let others = take_with(&store, 100, LONG, 256).await.leased;
    assert_eq!(others.len(), 80, "others are not concerned");
    store.release(&others[40..]).await.unwrap();
    let again = take_with(&store, 100, LONG, 256).await.leased;
    assert_eq!(again.len(), 40);
    for leased in others.into_iter().take(40).chain(again) {
        written(&store, succeeded(leased)).await;
    }

    stalled(&store, one.drain(..)).await;
    let mut part: usize = 2;
    let mut in_flight = answering.len();
    for leased in answering {
        written(&store, succeeded(leased)).await;
        part *= 2;
        in_flight -= 1;
        assert_eq!(room(&store).await, part.saturating_sub(in_flight));
    }
    assert_eq!(part, 256);
    assert_eq!(store.backlog().await.unwrap().stalling_endpoints, 0);
    assert!(!one_of().await.endpoint_stalls);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// A receiver that refuses at once holds no place for long, so it may go on failing as it did.
pub async fn who_fails_at_once_is_not_held_back(store: Subject) {
    flood(&store, "acme", "main", 400).await;
    for leased in take_with(&store, 60, LONG, 256).await.leased {
        written(&store, failed(leased, LONG)).await;
    }
    assert_eq!(room(&store).await, 256);
}

/// A tenant with a limit has no more in flight, over all its endpoints; what ends, in whatever way, makes
/// room, and others are not concerned.
pub async fn a_tenant_has_a_limit_in_flight(store: Subject) {
    limit(&store, &[("acme", 3), ("nobody", 1)]).await;
    flood(&store, "acme", "main", 10).await;
    flood(&store, "acme", "other", 10).await;
    flood(&store, "globex", "main", 5).await;
    let leased = take(&store, 100).await;
    let (mut held, others): (Vec<_>, Vec<_>) = leased
        .into_iter()
        .partition(|l| l.delivery.tenant_id.as_str() == "acme");
    assert_eq!((held.len(), others.len()), (3, 5));
    let main = held
        .iter()
        .filter(|l| l.delivery.endpoint_id.as_str() == "main");
    assert!((1..=2).contains(&main.count()), "endpoints take turns");
    assert!(take(&store, 100).await.is_empty());

    written(&store, succeeded(held.pop().unwrap())).await;
    assert!(take(&store, 100).await.len() == 1, "a record makes room");
    written(&store, failed(held.pop().unwrap(), LONG)).await;
    let short = take_with(&store, 100, SHORT, 100).await.leased;
    assert_eq!(short.len(), 1, "a failure makes room");
    store.release(&held).await.unwrap();
    assert_eq!(take(&store, 100).await.len(), 1, "a release makes room");
    take_one(&store, LONG).await;
    assert!(take(&store, 100).await.is_empty(), "one lease expired");
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    // No limit any more.
    limit(&store, &[]).await;
    assert_eq!(take(&store, 100).await.len(), 15);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// A limit that comes later, or becomes lower, counts what is in flight already.
pub async fn a_new_limit_counts_what_is_in_flight(store: Subject) {
    flood(&store, "acme", "main", 10).await;
    let mut held = take(&store, 4).await;
    limit(&store, &[("acme", 5)]).await;
    limit(&store, &[("acme", 5)]).await;
    held.extend(take(&store, 100).await);
    assert_eq!(held.len(), 5);
    limit(&store, &[("acme", 3)]).await;
    assert!(take(&store, 100).await.is_empty());
    for left in [4, 3] {
        written(&store, succeeded(held.pop().unwrap())).await;
        assert_eq!(held.len(), left);
        assert!(take(&store, 100).await.is_empty(), "{left} are in flight");
    }
    written(&store, succeeded(held.pop().unwrap())).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    limit(&store, &[("acme", 4)]).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    let report = store.check(crate::CheckRequest::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

/// Who waits hears that a tenant may have more in flight.
pub async fn a_raised_limit_wakes_who_waits(store: Subject) {
    limit(&store, &[("acme", 1)]).await;
    flood(&store, "acme", "main", 2).await;
    assert_eq!(take(&store, 100).await.len(), 1);
    assert!(take(&store, 100).await.is_empty());
    // Not busy for nothing meanwhile.
    let start = Instant::now();
    while start.elapsed() < SHORT * 2 {
        let before = Instant::now();
        store.wait_for_work(SHORT).await.unwrap();
        let early = before.elapsed() < SHORT / 2;
        assert!(take(&store, 100).await.is_empty());
        assert!(!early || start.elapsed() < SHORT, "woken again and again");
    }
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            limit(&store, &[("acme", 2)]).await;
        })
    };
    await_work(&store).await;
    writer.await.unwrap();
}
