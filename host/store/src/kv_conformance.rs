//! The promises of [`KeyValue`], one function each, for every store.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a broken promise is a panic here"
)]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use wasmhook_core::TenantId;

use crate::kv::{Forgotten, KeyValue, KeyValueError, KeyValueQuota, Writing};

/// Makes one test per promise for the store that `$make` makes: an `async fn` that returns a guard and
/// an `Arc<dyn KeyValue>` on an empty store.
#[macro_export]
macro_rules! kv_conformance_tests {
    ($make:path) => {
        $crate::kv_conformance_tests! { @each $make;
            a_value_comes_back_byte_for_byte
            a_value_ends
            a_new_value_has_its_own_end
            a_number_counts_in_64_bits
            a_number_keeps_its_end
            what_is_no_number_cannot_be_added_to
            concurrent_sums_lose_nothing
            a_swap_happens_for_the_expected_value_only
            of_concurrent_swaps_one_wins
            tenants_see_their_own_only
            keys_have_a_quota
            bytes_have_a_quota
            what_ended_or_was_removed_counts_no_more
            a_tenant_that_is_forgotten_leaves_nothing
            who_writes_while_a_tenant_is_forgotten_is_counted
        }
    };
    (@each $make:path; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (_guard, store) = $make().await;
            $crate::kv_conformance::$name(store).await;
        }
    )*};
}

type Store = Arc<dyn KeyValue>;

const PATIENCE: Duration = Duration::from_secs(30);

fn acme() -> &'static TenantId {
    static ACME: LazyLock<TenantId> = LazyLock::new(|| TenantId::new("acme").unwrap());
    &ACME
}

const ROOM: Writing = Writing {
    ttl: None,
    quota: KeyValueQuota {
        keys: 1_000,
        bytes: 1 << 20,
    },
};

fn within(keys: u64, bytes: u64) -> Writing {
    Writing {
        quota: KeyValueQuota { keys, bytes },
        ..ROOM
    }
}

fn ending(ttl: Duration) -> Writing {
    Writing {
        ttl: Some(ttl),
        ..ROOM
    }
}

/// Short enough to wait for, long enough for a call before it.
const SOON: Duration = Duration::from_millis(400);
const LATE: Duration = Duration::from_secs(3600);

async fn until_gone(store: &Store, key: &str) {
    let began = Instant::now();
    while store.read(acme(), key).await.unwrap().is_some() {
        assert!(began.elapsed() < PATIENCE, "{key} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn value(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.read(acme(), key).await.unwrap()
}

/// What is set is read, whatever bytes it and its key are made of; what is not set is not there.
pub async fn a_value_comes_back_byte_for_byte(store: Store) {
    assert_eq!(value(&store, "k").await, None);
    for (key, bytes) in [
        ("k", &b""[..]),
        ("k", b"\0\r\n\xff"),
        ("ключ \0 :*", b"12"),
        ("", b"empty"),
    ] {
        store.set(acme(), key, bytes, ROOM).await.unwrap();
        assert_eq!(value(&store, key).await.as_deref(), Some(bytes), "{key:?}");
    }
    let large = vec![7; 300_000];
    store.set(acme(), "large", &large, ROOM).await.unwrap();
    assert_eq!(value(&store, "large").await, Some(large));
    assert!(store.remove(acme(), "k").await.unwrap());
    assert!(!store.remove(acme(), "k").await.unwrap());
    assert_eq!(value(&store, "k").await, None);
}

/// A value with an end is there until then, and not there for anybody afterwards.
pub async fn a_value_ends(store: Store) {
    store.set(acme(), "late", b"v", ending(LATE)).await.unwrap();
    store
        .set(acme(), "long", b"v", ending(Duration::MAX))
        .await
        .unwrap();
    store.set(acme(), "soon", b"v", ending(SOON)).await.unwrap();
    until_gone(&store, "soon").await;
    assert!(!store.remove(acme(), "soon").await.unwrap());
    let swapped = store.compare_and_swap(acme(), "soon", Some(b"v"), Some(b"w"), ROOM);
    assert!(!swapped.await.unwrap());
    assert_eq!(store.increment(acme(), "soon", 3, ROOM).await.unwrap(), 3);
    assert!(value(&store, "late").await.is_some());
    assert!(value(&store, "long").await.is_some());
}

/// Setting a key anew replaces its end, or takes it away.
pub async fn a_new_value_has_its_own_end(store: Store) {
    for key in ["kept", "longer"] {
        store.set(acme(), key, b"v", ending(SOON)).await.unwrap();
    }
    store
        .set(acme(), "clock", b"v", ending(SOON * 2))
        .await
        .unwrap();
    store.set(acme(), "kept", b"v", ROOM).await.unwrap();
    store
        .set(acme(), "longer", b"v", ending(LATE))
        .await
        .unwrap();
    until_gone(&store, "clock").await;
    assert!(value(&store, "kept").await.is_some());
    assert!(value(&store, "longer").await.is_some());
}

/// Numbers are exact over all of 64 bits, and are read as decimal text.
pub async fn a_number_counts_in_64_bits(store: Store) {
    let add = |by| store.increment(acme(), "n", by, ROOM);
    assert_eq!(add(-5).await.unwrap(), -5);
    assert_eq!(add(i64::MAX).await.unwrap(), i64::MAX - 5);
    assert_eq!(add(4).await.unwrap(), i64::MAX - 1);
    let over = add(2).await.unwrap_err();
    assert!(matches!(over, KeyValueError::NotANumber), "{over}");
    assert_eq!(add(1).await.unwrap(), i64::MAX);
    let text = i64::MAX.to_string().into_bytes();
    assert_eq!(value(&store, "n").await, Some(text));
    store.set(acme(), "n", b"41", ROOM).await.unwrap();
    assert_eq!(add(1).await.unwrap(), 42);
}

/// A number that is made by adding gets an end, and keeps it however often it is added to.
pub async fn a_number_keeps_its_end(store: Store) {
    for _ in 0..3 {
        let adding = store.increment(acme(), "window", 1, ending(SOON));
        adding.await.unwrap();
    }
    let adding = store.increment(acme(), "window", 1, ending(LATE));
    adding.await.unwrap();
    until_gone(&store, "window").await;
    let adding = store.increment(acme(), "window", 1, ending(LATE));
    assert_eq!(adding.await.unwrap(), 1);
}

/// Only a number in its one form can be added to, and a refusal changes nothing.
pub async fn what_is_no_number_cannot_be_added_to(store: Store) {
    for text in ["", "x", "1.5", " 1", "+1", "01", "9223372036854775808"] {
        store.set(acme(), "k", text.as_bytes(), ROOM).await.unwrap();
        let error = store.increment(acme(), "k", 1, ROOM).await.unwrap_err();
        assert!(
            matches!(error, KeyValueError::NotANumber),
            "{text:?}: {error}"
        );
        assert_eq!(value(&store, "k").await.as_deref(), Some(text.as_bytes()));
    }
}

/// Sums of many at once add up.
pub async fn concurrent_sums_lose_nothing(store: Store) {
    let adders = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..25 {
                store.increment(acme(), "n", 1, ROOM).await.unwrap();
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    assert_eq!(value(&store, "n").await.as_deref(), Some(&b"200"[..]));
}

/// What is expected, what is to be set, whether that happens, and what is there afterwards.
type Step = (
    Option<&'static [u8]>,
    Option<&'static [u8]>,
    bool,
    Option<&'static [u8]>,
);

/// A swap compares value and absence, and sets or removes.
pub async fn a_swap_happens_for_the_expected_value_only(store: Store) {
    let steps: [Step; 9] = [
        (Some(b"a"), Some(b"b"), false, None),
        (None, None, true, None),
        (None, Some(b"a"), true, Some(b"a")),
        (None, Some(b"b"), false, Some(b"a")),
        (Some(b"x"), None, false, Some(b"a")),
        (Some(b"a"), Some(b""), true, Some(b"")),
        (None, Some(b"b"), false, Some(b"")),
        (Some(b""), None, true, None),
        (Some(b""), None, false, None),
    ];
    for (step, (expected, new, happens, after)) in steps.into_iter().enumerate() {
        let swapping = store.compare_and_swap(acme(), "k", expected, new, ROOM);
        assert_eq!(swapping.await.unwrap(), happens, "step {step}");
        assert_eq!(value(&store, "k").await.as_deref(), after, "step {step}");
    }
}

/// Of many who take the same lock one gets it.
pub async fn of_concurrent_swaps_one_wins(store: Store) {
    for round in 0..10 {
        let key = format!("lock {round}");
        let takers = (0..6_u8).map(|me| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move {
                let me = [me];
                let taking = store.compare_and_swap(acme(), &key, None, Some(&me), ROOM);
                taking.await.unwrap()
            })
        });
        let mut winners = 0;
        for taker in takers.collect::<Vec<_>>() {
            winners += usize::from(taker.await.unwrap());
        }
        assert_eq!(winners, 1);
    }
}

/// The same key of two tenants is two keys, and so are their quotas.
pub async fn tenants_see_their_own_only(store: Store) {
    let other = TenantId::new("acme2").unwrap();
    store
        .set(acme(), "k", b"mine", within(1, 100))
        .await
        .unwrap();
    assert_eq!(store.read(&other, "k").await.unwrap(), None);
    assert!(!store.remove(&other, "k").await.unwrap());
    store
        .set(&other, "k", b"theirs", within(1, 100))
        .await
        .unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some(&b"mine"[..]));
}

/// A key too many is refused, however it would be made; what is there can still be changed.
pub async fn keys_have_a_quota(store: Store) {
    let two = within(2, 1_000);
    store.set(acme(), "a", b"1", two).await.unwrap();
    store.increment(acme(), "b", 1, two).await.unwrap();
    let refusals = [
        store.set(acme(), "c", b"", two).await.unwrap_err(),
        store.increment(acme(), "c", 1, two).await.unwrap_err(),
        store
            .compare_and_swap(acme(), "c", None, Some(b""), two)
            .await
            .unwrap_err(),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, KeyValueError::TooManyKeys(2)),
            "{refusal}"
        );
    }
    assert_eq!(value(&store, "c").await, None);
    store.set(acme(), "a", b"more", two).await.unwrap();
    assert_eq!(store.increment(acme(), "b", 1, two).await.unwrap(), 2);
}

/// Keys and values count in bytes; what is made smaller passes even beyond the quota.
pub async fn bytes_have_a_quota(store: Store) {
    let ten = within(100, 10);
    store.set(acme(), "ab", b"12345678", ten).await.unwrap();
    for (key, bytes) in [("ab", &b"123456789"[..]), ("c", b"")] {
        let refusal = store.set(acme(), key, bytes, ten).await.unwrap_err();
        assert!(
            matches!(refusal, KeyValueError::TooManyBytes(10)),
            "{refusal}"
        );
    }
    assert_eq!(value(&store, "ab").await.as_deref(), Some(&b"12345678"[..]));
    // The operator lowered the quota since.
    store
        .set(acme(), "ab", b"1234567", within(100, 5))
        .await
        .unwrap();
    store.set(acme(), "c", b"", ten).await.unwrap();
}

/// Room comes back.
pub async fn what_ended_or_was_removed_counts_no_more(store: Store) {
    let two = within(2, 20);
    let soon = Writing {
        ttl: Some(SOON),
        ..two
    };
    store.set(acme(), "a", b"123456789", soon).await.unwrap();
    store.set(acme(), "b", b"123456789", two).await.unwrap();
    until_gone(&store, "a").await;
    store.set(acme(), "c", b"123456789", two).await.unwrap();
    store.remove(acme(), "b").await.unwrap();
    let swapping = store.compare_and_swap(acme(), "c", Some(b"123456789"), None, two);
    assert!(swapping.await.unwrap());
    for key in ["d", "e"] {
        store.set(acme(), key, b"123456789", two).await.unwrap();
    }
    let refusal = store.set(acme(), "f", b"", two).await.unwrap_err();
    assert!(
        matches!(refusal, KeyValueError::TooManyKeys(2)),
        "{refusal}"
    );
}

/// Everything of one tenant goes, whether or not it has an end, and all of its quota comes back.
pub async fn a_tenant_that_is_forgotten_leaves_nothing(store: Store) {
    let other = TenantId::new("acme2").unwrap();
    store.set(&other, "key 1", b"theirs", ROOM).await.unwrap();
    let (count, quota) = (1_200_u64, within(1_200, 1 << 20));
    for n in 0..count {
        let writing = Writing {
            ttl: (n % 3 == 0).then_some(LATE),
            ..quota
        };
        let key = format!("key {n}");
        store.set(acme(), &key, b"value", writing).await.unwrap();
    }
    let bytes: u64 = (0..count)
        .map(|n| format!("key {n}value").len() as u64)
        .sum();
    let forgotten = store.forget(acme()).await.unwrap();
    assert_eq!((forgotten.keys, forgotten.bytes), (count, bytes));
    for key in ["key 0", "key 1", "key 1199"] {
        assert_eq!(value(&store, key).await, None, "{key}");
    }
    let kept = store.read(&other, "key 1").await.unwrap();
    assert_eq!(kept.as_deref(), Some(&b"theirs"[..]));
    // Again, and of a tenant that never kept anything.
    for tenant in [acme(), &TenantId::new("nobody").unwrap()] {
        let nothing = store.forget(tenant).await.unwrap();
        assert_eq!(nothing, Forgotten::default());
    }
    let one = within(1, 10);
    store.set(acme(), "k", b"123456789", one).await.unwrap();
    store.set(acme(), "l", b"", one).await.unwrap_err();
}

/// Counts hold however writes and forgetting meet.
pub async fn who_writes_while_a_tenant_is_forgotten_is_counted(store: Store) {
    let writers = (0..4).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..50 {
                let key = format!("{writer} {n}");
                store.set(acme(), &key, b"v", ROOM).await.unwrap();
                store.increment(acme(), "n", 1, ROOM).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..20 {
        store.forget(acme()).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    store.forget(acme()).await.unwrap();
    let two = within(2, 1_000);
    for key in ["a", "b"] {
        store.set(acme(), key, b"v", two).await.unwrap();
    }
    let refusal = store.set(acme(), "c", b"v", two).await.unwrap_err();
    assert!(
        matches!(refusal, KeyValueError::TooManyKeys(2)),
        "{refusal}"
    );
    assert_eq!(store.forget(acme()).await.unwrap().bytes, 4);
}
