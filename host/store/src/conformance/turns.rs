//! Promises about turns: of tenants, and of endpoints within a tenant.

use wasmhook_core::{Quota, Weight};

use super::Subject;
use super::steps::{by_tenant, flood, limit, succeeded, take, tenant, written};
use crate::Leased;

/// A tenant with little work is not held up by one with much.
pub async fn tenants_take_turns(store: Subject) {
    flood(&store, "acme", "main", 200).await;
    flood(&store, "globex", "main", 5).await;
    let leased = take(&store, 20).await;
    assert_eq!(leased.len(), 20);
    assert_eq!(by_tenant(&leased, "globex"), 5);
    // One at a time as well.
    flood(&store, "initech", "main", 3).await;
    let mut seen = 0;
    for _ in 0..16 {
        seen += by_tenant(&take(&store, 1).await, "initech");
    }
    assert_eq!(seen, 3);
}

/// A tenant that comes late waits for one turn, not for the backlog.
pub async fn a_late_tenant_is_served_at_once(store: Subject) {
    for n in 0..5 {
        flood(&store, &format!("busy{n}"), "main", 50).await;
    }
    assert_eq!(take(&store, 25).await.len(), 25);
    flood(&store, "late", "main", 1).await;
    let leased = take(&store, 30).await;
    assert_eq!(leased.len(), 30);
    assert_eq!(by_tenant(&leased, "late"), 1);
}

/// Endpoints of one tenant share its turn.
pub async fn endpoints_take_turns(store: Subject) {
    flood(&store, "acme", "busy", 100).await;
    flood(&store, "acme", "quiet", 4).await;
    let leased = take(&store, 10).await;
    assert_eq!(leased.len(), 10);
    let quiet = leased
        .iter()
        .filter(|l| l.delivery.endpoint_id.as_str() == "quiet")
        .count();
    assert!(quiet >= 4, "{quiet} of the quiet endpoint's 4");
}

/// Who asks for less than there are tenants or endpoints serves them all in the end.
pub async fn few_places_are_shared_in_turn(store: Subject) {
    for name in ["acme", "globex", "initech"] {
        flood(&store, name, "main", 25).await;
    }
    let mut leased = Vec::new();
    for _ in 0..15 {
        leased.extend(take(&store, 2).await);
    }
    assert_eq!(leased.len(), 30);
    for name in ["acme", "globex", "initech"] {
        let got = by_tenant(&leased, name);
        assert!((9..=11).contains(&got), "{got} of {name}");
    }
    limit(&store, &[("acme", 1), ("globex", 1), ("initech", 1)]).await;
    for name in ["main", "audit", "other"] {
        flood(&store, "umbrella", name, 25).await;
    }
    let mut leased = Vec::new();
    for _ in 0..15 {
        leased.extend(take(&store, 2).await);
    }
    assert_eq!(by_tenant(&leased, "umbrella"), 30);
    for name in ["main", "audit", "other"] {
        let of = |l: &&Leased| l.delivery.endpoint_id.as_str() == name;
        let got = leased.iter().filter(of).count();
        assert!((9..=11).contains(&got), "{got} of {name}");
    }
}

/// Turns are by weight, whether workers ask for much or little at once.
pub async fn weighty_tenants_get_more_turns(store: Subject) {
    let quota = Quota {
        weight: Weight::new(3).unwrap(),
        max_in_flight: None,
    };
    store
        .set_quotas(&[(tenant("globex"), quota)])
        .await
        .unwrap();
    for name in ["acme", "globex", "initech"] {
        flood(&store, name, "main", 100).await;
    }
    for (max, times) in [(1, 40), (2, 20), (4, 10), (7, 10), (50, 1)] {
        let mut leased = Vec::new();
        for _ in 0..times {
            leased.extend(take(&store, max).await);
        }
        assert_eq!(leased.len(), max * times);
        // Three in five, but for a turn that is not over.
        let got = by_tenant(&leased, "globex");
        let fair = max * times * 3 / 5;
        assert!(
            got.abs_diff(fair) <= 3,
            "{got} of {} at {max}, not about {fair}",
            leased.len()
        );
        let (one, other) = (by_tenant(&leased, "acme"), by_tenant(&leased, "initech"));
        assert!(one.abs_diff(other) <= 2, "{one} and {other} at {max}");
        store.release(&leased).await.unwrap();
    }
}

/// Who lacks places that others hold, with nothing due, does not keep the turn of everybody else for that.
pub async fn who_lacks_places_does_not_keep_the_turn_for_ever(store: Subject) {
    flood(&store, "initech", "main", 400).await;
    let held = take(&store, 400).await;
    assert_eq!(held.len(), 400);
    flood(&store, "acme", "main", 5000).await;
    flood(&store, "globex", "main", 5000).await;
    let mut served = std::collections::BTreeSet::new();
    // Each ends at once, so neither ever holds what would be its part.
    for _ in 0..5000 {
        let leased = take(&store, 1).await.pop().unwrap();
        served.insert(leased.delivery.tenant_id.clone());
        written(&store, succeeded(leased)).await;
        if served.len() == 2 {
            return;
        }
    }
    panic!("only {served:?} was served");
}

/// Places are held for as long as receivers take. Who holds more than its part of them gets no more while others have
/// something due, and all that those leave.
pub async fn who_holds_most_places_waits_for_the_others(store: Subject) {
    flood(&store, "acme", "main", 400).await;
    let slow = take(&store, 200).await;
    assert_eq!(by_tenant(&slow, "acme"), 200);
    flood(&store, "globex", "main", 250).await;
    for _ in 0..18 {
        let next = take(&store, 10).await;
        assert_eq!(by_tenant(&next, "globex"), 10, "it holds fewer");
    }
    let mut next = Vec::new();
    for _ in 0..6 {
        next.extend(take(&store, 10).await);
    }
    let of_globex = by_tenant(&next, "globex");
    assert!((20..=50).contains(&of_globex), "{of_globex} of 60");
    // And what one leaves is the other's.
    loop {
        let more = take(&store, 50).await;
        if more.is_empty() {
            break;
        }
        next.extend(more);
    }
    assert_eq!(next.len(), 270);
}
