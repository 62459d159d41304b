//! Opening the store that the configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::redis::{RedisStore, RedisStream};
use wasmhook_store::{EventStream, KeyValue, Store};

use crate::config::{Config, StoreKind};

/// The store, and the stream if it has one.
pub(crate) struct Stores {
    pub(crate) store: Arc<dyn Store>,
    /// What plugins keep, in the same place.
    pub(crate) key_value: Arc<dyn KeyValue>,
    pub(crate) stream: Option<Arc<dyn EventStream>>,
}

/// Opens the store: as the host, which the embedded store allows one of, or for a tool beside it.
pub(crate) async fn open(config: &Config, host: bool) -> anyhow::Result<Stores> {
    match config.store.kind {
        StoreKind::Embedded => {
            let path = config.path(&config.store.path);
            // A file of an older version is read as a whole first, and who waits is to hear of a stop meanwhile.
            let opening = spawn_blocking(move || {
                if host {
                    EmbeddedStore::open(EmbeddedConfig { path, host })
                } else {
                    EmbeddedStore::open_for_tools(path)
                }
            });
            let store = Arc::new(opening.await.context("opening the store failed")??);
            Ok(Stores {
                key_value: store.clone(),
                store,
                stream: None,
            })
        }
        StoreKind::Redis => {
            let settings = config.redis()?;
            let store = RedisStore::connect(settings.clone()).await?;
            let stream = RedisStream::connect(settings).await?;
            let store = Arc::new(store);
            Ok(Stores {
                key_value: store.clone(),
                store,
                stream: Some(Arc::new(stream)),
            })
        }
    }
}

/// The event stream alone, for who only pushes.
pub(crate) async fn open_stream(config: &Config) -> anyhow::Result<RedisStream> {
    Ok(RedisStream::connect(config.redis()?).await?)
}
