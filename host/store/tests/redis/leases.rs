//! How long leases last, and what tells them apart.

use std::collections::HashMap;
use std::time::Duration;

use wasmhook_store::conformance::{event, to};
use wasmhook_store::{Leased, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{on_one_shard, request};

#[tokio::test]
async fn no_two_leases_have_one_fence_however_long_they_last() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    // Stamps that are ahead of the clock follow one another, so ends of leases can be made to meet.
    let ahead = jiff::Timestamp::now().as_microsecond() + 10_000_000;
    let set_ahead = ["SET", "{wasmhook:0}:u", &ahead.to_string()];
    let () = server.ask(&set_ahead).unwrap();
    let item = [to(&event("acme", "evt_1"), &["main"])];
    store.enqueue(&item).await.unwrap();
    let mut fences = HashMap::new();
    let mut older: Vec<Leased> = Vec::new();
    for n in 0..200 {
        // Another host with a shorter time limit, and one with ever shorter ones.
        let shorter = [0, n, 4 * n][usize::try_from(n % 3).unwrap()];
        let mut one = request(1);
        one.duration -= Duration::from_micros(shorter);
        let leased = store.lease(&one).await.unwrap().leased;
        let ends: i64 = leased[0].token.0.parse().unwrap();
        if let Some(earlier) = fences.insert(ends, n) {
            panic!("leases {earlier} and {n} both have the fence {ends}");
        }
        // What was given back before gives nothing back that is held now.
        store.release(&older).await.unwrap();
        assert!(store.lease(&one).await.unwrap().leased.is_empty());
        store.release(&leased).await.unwrap();
        older.extend(leased);
    }
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_was_asked_beside_longer_ones() {
    let server = RedisServer::start().unwrap();
    let store = on_one_shard(&server).await;
    let items: Vec<_> = (0..8)
        .map(|n| to(&event("acme", &format!("evt_{n}")), &["main"]))
        .collect();
    store.enqueue(&items).await.unwrap();
    let mut last = i64::MAX;
    for minutes in (1..=8).rev() {
        let mut one = request(1);
        one.duration = Duration::from_mins(minutes);
        let leased = store.lease(&one).await.unwrap().leased;
        let ends: i64 = leased[0].token.0.parse().unwrap();
        let minute = 60_000_000;
        assert!(last == i64::MAX || last - ends > minute / 2, "{minutes}");
        last = ends;
    }
}
