//! Opening the store that the configuration names.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream};
use wasmhook_store::{EventStream, Store};

use crate::config::{Config, StoreKind};

/// The store, and the stream if it has one.
pub(crate) struct Stores {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) stream: Option<Arc<dyn EventStream>>,
}

/// Opens the store: as the host, which the embedded store allows one of, or for a tool beside it.
pub(crate) async fn open(config: &Config, host: bool) -> anyhow::Result<Stores> {
    match config.store.kind {
        StoreKind::Embedded => {
            let path = config.path(&config.store.path);
            let store = if host {
                EmbeddedStore::open(EmbeddedConfig { path, host })?
            } else {
                EmbeddedStore::open_for_tools(path)?
            };
            Ok(Stores {
                store: Arc::new(store),
                stream: None,
            })
        }
        StoreKind::Redis => {
            let settings = redis(config);
            let store = RedisStore::connect(settings.clone()).await?;
            let stream = RedisStream::connect(settings).await?;
            Ok(Stores {
                store: Arc::new(store),
                stream: Some(Arc::new(stream)),
            })
        }
    }
}

/// The event stream alone, for who only pushes.
pub(crate) async fn open_stream(config: &Config) -> anyhow::Result<RedisStream> {
    Ok(RedisStream::connect(redis(config)).await?)
}

fn redis(config: &Config) -> RedisConfig {
    let redis = &config.redis;
    let mut settings = RedisConfig::new(redis.url.expose_secret());
    settings.prefix.clone_from(&redis.prefix);
    settings.shards = redis.shards;
    settings.stream = redis
        .stream
        .clone()
        .unwrap_or_else(|| format!("{}:events", redis.prefix));
    settings.group.clone_from(&redis.group);
    settings.connect_timeout = redis.connect_timeout.0;
    if let Some(consumer) = redis.consumer.clone().or_else(host_name) {
        settings.consumer = consumer;
    }
    settings
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/etc/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
