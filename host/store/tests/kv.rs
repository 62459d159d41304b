//! The key-value store's promises, kept by both stores.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use wasmhook_store::KeyValue;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_testing::RedisServer;

mod embedded {
    use super::*;

    #[allow(clippy::unused_async, reason = "the other store starts a server here")]
    async fn make() -> (tempfile::TempDir, Arc<dyn KeyValue>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let store = EmbeddedStore::open(EmbeddedConfig { path, host: true }).unwrap();
        (folder, Arc::new(store))
    }

    wasmhook_store::kv_conformance_tests!(make);
}

mod redis {
    use super::*;

    async fn make() -> (RedisServer, Arc<dyn KeyValue>) {
        let server = RedisServer::start().unwrap();
        let store = RedisStore::connect(RedisConfig::new(server.url()))
            .await
            .unwrap();
        (server, Arc::new(store))
    }

    wasmhook_store::kv_conformance_tests!(make);
}
