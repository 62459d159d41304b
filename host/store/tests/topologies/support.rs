//! What the tests of all topologies share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use wasmhook_store::redis::{RedisConfig, Sentinels, Topology};
use wasmhook_store::{LeaseRequest, StoreError};
use wasmhook_testing::{RedisCluster, RedisSentinels};

/// A bound against hanging, nothing more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Servers that take seconds to start, for all tests that do not harm them. They end with the last
/// test that holds them.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub(crate) fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self.0.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *shared = Arc::downgrade(&started);
            started
        })
    }
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("wasmhook{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Settings with names of their own, so that tests can share servers.
pub(crate) fn settings(topology: Topology) -> RedisConfig {
    let mut config = RedisConfig::with_topology(topology);
    config.prefix = prefix();
    config.stream = format!("{}:events", config.prefix);
    config.connect_timeout = Duration::from_secs(20);
    config
}

pub(crate) fn on_cluster(cluster: &RedisCluster) -> RedisConfig {
    let urls = cluster.urls().into_iter().map(Into::into).collect();
    settings(Topology::Cluster(urls))
}

pub(crate) fn by_sentinels(servers: &RedisSentinels) -> RedisConfig {
    settings(Topology::Sentinel(Sentinels {
        urls: servers.urls().into_iter().map(Into::into).collect(),
        master: RedisSentinels::MASTER.to_owned(),
        username: None,
        password: None,
    }))
}

pub(crate) fn request(max: usize) -> LeaseRequest {
    LeaseRequest {
        max,
        duration: Duration::from_secs(3),
        max_per_endpoint: 1000,
    }
}

/// Whether a host would try again.
pub(crate) fn passes(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable { .. } | StoreError::NotReplicated { .. }
    )
}

/// Tries until the store is back, as a host does.
pub(crate) async fn until<T, F>(mut work: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let start = Instant::now();
    loop {
        match work().await {
            Ok(value) => return value,
            Err(error) => assert!(
                passes(&error) && start.elapsed() < PATIENCE,
                "after {:?}: {error}",
                start.elapsed()
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
