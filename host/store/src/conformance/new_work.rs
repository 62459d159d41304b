//! Promises about work of tenants that had none.

use std::time::Duration;

use super::Subject;
use super::steps::{LONG, PATIENCE, put, succeeded, take, written};
use crate::{LeaseRequest, Leased};

fn request(max: usize) -> LeaseRequest {
    LeaseRequest {
        max,
        duration: LONG,
        max_per_endpoint: 100,
    }
}

/// Leases new work once there is some.
async fn new_work(store: &Subject, light: usize) -> Vec<Leased> {
    let new_work = store.new_work();
    let brought = new_work.wait(&request(0), light, PATIENCE).await;
    assert!(brought.is_empty(), "nothing was asked for");
    new_work.lease(&request(32), light).await
}

/// A tenant with a hundred due deliveries, that has had turns.
async fn heavy(store: &Subject) {
    for number in 0..100 {
        put(store, "heavy", &format!("evt_{number}"), &["main"]).await;
    }
    while !store.new_work().lease(&request(32), 1).await.is_empty() {}
    for _ in 0..4 {
        assert_eq!(take(store, 10).await.len(), 10);
    }
}

/// What a tenant has that had nothing is leased apart from all that others have, once.
pub async fn new_work_is_leased_apart(store: Subject) {
    heavy(&store).await;
    for number in 0..10 {
        put(&store, "light", &format!("evt_{number}"), &["main"]).await;
        let leased = new_work(&store, 16).await;
        assert_eq!(leased.len(), 1, "event {number}");
        assert_eq!(leased[0].delivery.tenant_id.as_str(), "light");
        let again = store.new_work().lease(&request(32), 16).await;
        assert!(again.is_empty(), "it is not new any more");
        for leased in leased {
            written(&store, succeeded(leased)).await;
        }
    }
    store.new_work().wait_for_rest(PATIENCE).await;
    assert_eq!(
        take(&store, 10).await.len(),
        10,
        "the rest is leased with all others"
    );
}

/// An endpoint that has as much in flight as a light one may have is served with all others.
pub async fn new_work_is_for_who_has_little_in_flight(store: Subject) {
    heavy(&store).await;
    for number in 0..5 {
        put(&store, "light", &format!("evt_{number}"), &["main"]).await;
        let leased = new_work(&store, 3).await;
        let expected = usize::from(number < 3);
        assert_eq!(leased.len(), expected, "event {number}");
    }
    let mut left = 2;
    for _ in 0..20 {
        let leased = take(&store, 10).await;
        let light = leased
            .iter()
            .filter(|it| it.delivery.tenant_id.as_str() == "light");
        left -= light.count();
    }
    assert_eq!(left, 0);
}

/// Who waits for new work returns when told to, and by itself.
pub async fn waiting_for_new_work_ends(store: Subject) {
    while !store.new_work().lease(&request(32), 16).await.is_empty() {}
    for _ in 0..3 {
        let (one, waiting) = (request(1), store.new_work());
        let waiting = waiting.wait(&one, 16, PATIENCE * 10);
        let interrupting = async {
            tokio::task::yield_now().await;
            store.new_work().interrupt();
        };
        let both = async { tokio::join!(waiting, interrupting) };
        let (brought, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        assert!(brought.is_empty());
        let short = Duration::from_millis(1);
        assert!(store.new_work().wait(&one, 16, short).await.is_empty());
    }
}
