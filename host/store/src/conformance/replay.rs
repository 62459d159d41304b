//! Promises about ends, and about replay, which undoes them.

use std::time::Duration;

use wasmhook_core::{DeliveryId, DeliveryState, Event};

use super::Subject;
use super::steps::{
    LONG, dead, event, failed, get, put, state, succeeded, take, take_one, take_with, tenant,
    written,
};
use crate::{Leased, Outcome, StoreError};

/// A dead letter is never leased by itself.
pub async fn a_dead_letter_stays(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    let batch = take_with(&store, 10, LONG, 10).await;
    assert!(batch.leased.is_empty());
    assert_eq!(batch.next_due, None);
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::DeadLetter);
    assert_eq!(kept.delivery.attempt, 1);
    assert_eq!(kept.attempts[0].status_code, Some(410));
    assert_eq!(kept.lease_until, None);
}

async fn replays(store: Subject, finish: fn(Leased) -> Outcome) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    for round in 1..=2u32 {
        let leased = take_one(&store, LONG).await;
        assert_eq!(leased.delivery.attempt, round - 1);
        written(&store, finish(leased)).await;
        let finished = get(&store, "acme", &id).await;
        store.replay(&tenant("acme"), &id).await.unwrap();
        let kept = get(&store, "acme", &id).await;
        assert_eq!(kept.delivery.state, DeliveryState::Pending);
        assert_eq!(kept.delivery.attempt, round);
        assert_eq!(kept.delivery.replayed_at_attempt, round);
        assert_eq!(kept.delivery.created_at, finished.delivery.created_at);
        assert_eq!(kept.attempts, finished.attempts);
        assert_eq!(store.backlog().await.unwrap().waiting, 1);
    }
    let leased = take_one(&store, LONG).await;
    assert_eq!(leased.event, event_as(&leased.event, "acme", "evt_1"));
    written(&store, succeeded(leased)).await;
    let kept = get(&store, "acme", &id).await;
    assert_eq!(kept.delivery.state, DeliveryState::Succeeded);
    let numbers: Vec<_> = kept.attempts.iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

/// The event as made here, with the time of the one found.
fn event_as(found: &Event, tenant: &str, id: &str) -> Event {
    Event {
        occurred_at: found.occurred_at,
        ..event(tenant, id)
    }
}

/// A replayed dead letter is pending, due, and keeps its attempts.
pub async fn a_dead_letter_is_replayed(store: Subject) {
    replays(store, dead).await;
}

/// So is a replayed success.
pub async fn a_succeeded_delivery_is_replayed(store: Subject) {
    replays(store, succeeded).await;
}

/// Only finished deliveries of the asking tenant can be replayed.
pub async fn replay_keeps_to_its_tenant_and_to_finished_deliveries(store: Subject) {
    let id = put(&store, "acme", "evt_1", &["main"]).await.remove(0);
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let not_finished = |error| match error {
        StoreError::NotFinished(state) => state,
        other => panic!("expected NotFinished, found {other}"),
    };
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Pending);
    let leased = take_one(&store, LONG).await;
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Leased);
    written(&store, failed(leased, Duration::ZERO)).await;
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Failed);
    let leased = take_one(&store, LONG).await;
    written(&store, dead(leased)).await;
    for (tenant, id) in [
        (&globex, id.clone()),
        (&acme, DeliveryId::new("whdel_none").unwrap()),
    ] {
        let error = store.replay(tenant, &id).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound), "{error}");
    }
    assert_eq!(state(&store, "acme", &id).await, DeliveryState::DeadLetter);
    store.replay(&acme, &id).await.unwrap();
    let error = store.replay(&acme, &id).await.unwrap_err();
    assert_eq!(not_finished(error), DeliveryState::Pending);
    assert_eq!(take(&store, 10).await.len(), 1);
}
