//! How long leases last, and what tells them apart.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use wasmhook_core::{Quota, TenantId, Weight};
use wasmhook_store::conformance::{event, to};
use wasmhook_store::{Leased, Store as _};
use wasmhook_testing::RedisServer;

use crate::support::{on_one_shard, push, request, store};

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

/// In which shard each tenant is: its ring is there.
fn shards_of_tenants(server: &RedisServer) -> HashMap<String, String> {
    let rings: Vec<String> = server.ask(&["KEYS", "{wasmhook:*}:r:*"]).unwrap();
    rings
        .iter()
        .filter_map(|ring| ring.split_once(":r:"))
        .map(|(shard, tenant)| (tenant.to_owned(), shard.to_owned()))
        .collect()
}

#[tokio::test]
async fn shards_take_turns_while_few_places_are_free() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    for n in 0..32 {
        push(&store, &format!("tenant{n}"), 0..100).await;
    }
    let shard_of = shards_of_tenants(&server);
    let mut tenants: HashMap<&str, usize> = HashMap::new();
    for shard in shard_of.values() {
        *tenants.entry(shard).or_default() += 1;
    }
    assert_eq!((tenants.len(), shard_of.len()), (4, 32));
    let () = server.ask(&["CONFIG", "RESETSTAT"]).unwrap();
    let mut given: HashMap<&str, usize> = HashMap::new();
    for _ in 0..48 {
        let leased = store.lease(&request(8)).await.unwrap().leased;
        assert_eq!(leased.len(), 8);
        for leased in leased {
            let shard = &shard_of[leased.delivery.tenant_id.as_str()];
            *given.entry(shard).or_default() += 1;
        }
    }
    // Twelve for each tenant, but for the calls that it took to learn how many there are.
    for (shard, count) in given {
        let fair = 12 * tenants[shard];
        assert!(count.abs_diff(fair) <= 16, "{count} of {shard}, not {fair}");
    }
    // What few are asked for is not parted among the shards.
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    assert!(stats.contains("cmdstat_fcall:calls=48,"), "{stats}");
    // Who asks for all that there is gets it, whoever has it.
    let rest = store.lease(&request(4000)).await.unwrap().leased;
    assert_eq!(rest.len(), 32 * 100 - 8 * 48);
}

#[tokio::test]
async fn tenants_get_turns_by_weight_whatever_shards_they_are_in() {
    let server = RedisServer::start().unwrap();
    let store = store(&server).await;
    let names: Vec<String> = (0..7).map(|n| format!("tenant{n}")).collect();
    for name in &names {
        push(&store, name, 0..1000).await;
    }
    let quota = Quota {
        weight: Weight::new(5).unwrap(),
        max_in_flight: None,
    };
    let heavy = TenantId::new(&names[3]).unwrap();
    store.set_quotas(&[(heavy, quota)]).await.unwrap();
    let shards: HashSet<String> = shards_of_tenants(&server).into_values().collect();
    assert!(shards.len() > 1, "all are in {shards:?}");
    let (mut given, mut all): (HashMap<String, usize>, usize) = (HashMap::new(), 0);
    // Places come back in numbers of every size.
    for n in 0..40 {
        let mut some = request(5 + 13 * n % 97);
        some.max_per_endpoint = 10_000;
        for leased in store.lease(&some).await.unwrap().leased {
            let tenant = leased.delivery.tenant_id.as_str().to_owned();
            *given.entry(tenant).or_default() += 1;
            all += 1;
        }
    }
    for name in &names {
        let fair = all * if *name == names[3] { 5 } else { 1 } / 11;
        let count = given[name];
        // A call for each shard is not told yet, and turns are not parted.
        assert!(count.abs_diff(fair) <= 60, "{count} of {name}, not {fair}");
    }
}
