//! Behind Sentinels.

use std::sync::Arc;

use wasmhook_store::Store;
use wasmhook_store::redis::RedisStore;
use wasmhook_testing::{Durability, RedisSentinels};

use crate::support::{Shared, by_sentinels};

mod conformance {
    use super::*;

    static SERVERS: Shared<RedisSentinels> = Shared::new();

    async fn make() -> (Arc<RedisSentinels>, Arc<dyn Store>) {
        let servers = SERVERS.get(|| RedisSentinels::start(1, Durability::None, &[]).unwrap());
        let mut config = by_sentinels(&servers);
        config.wait_replicas = 1;
        config.wait_timeout = std::time::Duration::from_secs(10);
        let store = RedisStore::connect(config).await.unwrap();
        (servers, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}
