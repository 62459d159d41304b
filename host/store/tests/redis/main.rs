//! The Redis store and stream against a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod connecting;
mod cost;
mod damage;
mod keys;
mod leases;
mod new_work;
mod outages;
mod retention;
mod stream;
mod support;

mod conformance {
    use std::sync::Arc;

    use wasmhook_store::Store;
    use wasmhook_testing::RedisServer;

    use crate::support::store;

    async fn make() -> (RedisServer, Arc<dyn Store>) {
        let server = RedisServer::start().unwrap();
        let store = store(&server).await;
        (server, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}

mod conformance_on_one_shard {
    use std::sync::Arc;

    use wasmhook_store::Store;
    use wasmhook_testing::RedisServer;

    use crate::support::on_one_shard;

    async fn make() -> (RedisServer, Arc<dyn Store>) {
        let server = RedisServer::start().unwrap();
        let store = on_one_shard(&server).await;
        (server, Arc::new(store))
    }

    wasmhook_store::turn_tests!(make);
    wasmhook_store::conformance_tests!(make);
}
