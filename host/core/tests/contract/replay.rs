//! Running a finished delivery again, on behalf of a tenant.

use wasmhook_core::{Delivery, DeliveryId, DeliveryState, EndpointId, replay};

use crate::support::{At, Store, event, now, time};

/// A store with one delivery of acme in the given state, three attempts old.
fn store(state: DeliveryState) -> Store {
    let store = Store::default();
    let made = time("2026-03-01T08:00:00Z");
    let id = DeliveryId::new("whdel_1").unwrap();
    let to = EndpointId::new("main").unwrap();
    let mut delivery = Delivery::pending(id, &event(), to, None, made);
    (delivery.state, delivery.attempt) = (state, 3);
    store.put(delivery);
    store
}

async fn refusal(store: Option<&Store>, tenant: &str, delivery: &str) -> String {
    replay(store, &At(now()), tenant, delivery)
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn a_finished_delivery_is_pending_and_due_now_again() {
    for state in [DeliveryState::DeadLetter, DeliveryState::Succeeded] {
        let store = store(state);
        replay(Some(&store), &At(now()), " acme ", "whdel_1\n")
            .await
            .unwrap();
        let delivery = &store.deliveries()[0];
        assert_eq!(delivery.state, DeliveryState::Pending);
        assert_eq!([delivery.next_at, delivery.updated_at], [now(); 2]);
        assert_eq!(delivery.created_at, time("2026-03-01T08:00:00Z"));
        assert_eq!((delivery.attempt, delivery.replayed_at_attempt), (3, 3));
    }
}

#[tokio::test]
async fn a_delivery_that_is_not_finished_is_left_alone() {
    for state in [
        DeliveryState::Pending,
        DeliveryState::Leased,
        DeliveryState::Failed,
    ] {
        let store = store(state);
        assert_eq!(
            refusal(Some(&store), "acme", "whdel_1").await,
            format!(
                "invalid webhook delivery: only a succeeded or dead_letter delivery can be \
                 replayed, this one is {state}"
            )
        );
        assert_eq!(store.deliveries()[0].state, state);
    }
}

#[tokio::test]
async fn a_replay_without_a_store_says_so() {
    assert_eq!(
        refusal(None, "acme", "whdel_1").await,
        "webhook delivery store not configured: expected a delivery store"
    );
}

#[tokio::test]
async fn empty_ids_are_an_invalid_delivery() {
    let store = store(DeliveryState::DeadLetter);
    for (tenant, delivery) in [
        ("", "whdel_1"),
        (" ", "whdel_1"),
        ("acme", ""),
        ("acme", " "),
    ] {
        let error = refusal(Some(&store), tenant, delivery).await;
        assert!(error.starts_with("invalid webhook delivery: "), "{error}");
    }
    assert_eq!(store.deliveries()[0].state, DeliveryState::DeadLetter);
}

#[tokio::test]
async fn another_tenants_delivery_is_answered_like_one_that_does_not_exist() {
    let store = store(DeliveryState::DeadLetter);
    let anothers = refusal(Some(&store), "globex", "whdel_1").await;
    let nobodys = refusal(Some(&store), "globex", "whdel_2").await;
    assert_eq!(anothers, nobodys);
    assert!(anothers.starts_with("webhook delivery not found"));
    assert_eq!(store.deliveries()[0].state, DeliveryState::DeadLetter);
}
