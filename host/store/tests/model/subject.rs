//! The stores under test, each as several workers see it, and their clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use wasmhook_core::ports::Clock;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_store::{Retention, Store, StoreError};
use wasmhook_testing::RedisServer;

use crate::steps::{CLIENTS, LONG};

/// An empty store, as several workers see it.
pub(crate) struct Subject {
    stores: Vec<Arc<dyn Store>>,
    /// The clock, if it can be held.
    clock: Option<Arc<HeldClock>>,
    /// The furthest ahead that the store has seen its clock, in microseconds: it never goes back.
    ahead: i64,
    _folder: Option<TempDir>,
}

/// The system's clock, set ahead.
#[derive(Default)]
pub(crate) struct HeldClock {
    ahead: AtomicI64,
}

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        shifted(self.ahead.load(Ordering::SeqCst))
    }
}

fn shifted(micros: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_micros(micros)
}

impl Subject {
    /// A deployment of its own on this server, each worker with connections of its own.
    pub(crate) async fn redis(server: &RedisServer, shards: u16) -> Self {
        static DEPLOYMENTS: AtomicI64 = AtomicI64::new(0);
        let mut config = RedisConfig::new(server.url());
        config.prefix = format!("model{}", DEPLOYMENTS.fetch_add(1, Ordering::SeqCst));
        config.shards = shards;
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for _ in 0..CLIENTS {
            stores.push(Arc::new(RedisStore::connect(config.clone()).await.unwrap()));
        }
        Self {
            stores,
            clock: None,
            ahead: 0,
            _folder: None,
        }
    }

    /// A file of its own. All workers are of the one host that may have it.
    pub(crate) fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(HeldClock::default());
        let config = EmbeddedConfig {
            path: folder.path().to_owned(),
            host: true,
        };
        let store: Arc<dyn Store> =
            Arc::new(EmbeddedStore::open_with_clock(config, clock.clone()).unwrap());
        Self {
            stores: vec![store; CLIENTS],
            clock: Some(clock),
            ahead: 0,
            _folder: Some(folder),
        }
    }

    /// The store, for each worker.
    pub(crate) fn stores(&self) -> impl Iterator<Item = Arc<dyn Store>> {
        self.stores.iter().cloned()
    }

    /// The time by the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        shifted(self.ahead)
    }

    /// Sets the system's clock so far ahead of where it is; false if it cannot be set.
    pub(crate) async fn jump(&mut self, by: SignedDuration) -> Result<bool, StoreError> {
        let Some(clock) = &self.clock else {
            return Ok(false);
        };
        let micros = i64::try_from(by.as_micros()).unwrap();
        let ahead = clock.ahead.fetch_add(micros, Ordering::SeqCst) + micros;
        // Has the store look at its clock, and removes nothing.
        let everything = Retention {
            age: Duration::from_secs(1 << 31),
            count: usize::MAX,
        };
        self.stores[0].retain(&everything).await?;
        self.ahead = self.ahead.max(ahead);
        Ok(true)
    }

    /// Lets all leases and waits end, as far as the clock can be set; whether it can.
    pub(crate) async fn leap(&mut self) -> Result<bool, StoreError> {
        let back = self
            .clock
            .as_ref()
            .map_or(0, |clock| self.ahead - clock.ahead.load(Ordering::SeqCst));
        let long = SignedDuration::try_from(LONG * 2).unwrap();
        self.jump(SignedDuration::from_micros(back) + long).await
    }
}
