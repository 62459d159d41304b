//! What every host of a deployment must agree on: the layout of keys and records, and the number of shards.

use redis::Value;

use super::config::RedisConfig;
use super::connection::Link;
use super::keys::Keys;
use crate::error::StoreError;

/// The form of keys and records; raised with every change that older hosts cannot read. Layout 2 has
/// sequences, and is otherwise layout 1.
const LAYOUT: u16 = 2;

/// Checks what every host of a deployment must agree on, and sets it where nothing is set yet.
pub(super) async fn agree(
    link: &Link,
    keys: &Keys,
    config: &RedisConfig,
) -> Result<(), StoreError> {
    let meta = keys.meta();
    let mut pipeline = redis::pipe();
    for (field, value) in [("shards", config.shards), ("layout", LAYOUT)] {
        pipeline
            .cmd("HSETNX")
            .arg(&meta)
            .arg(field)
            .arg(value)
            .ignore();
    }
    pipeline.cmd("HMGET").arg(&meta).arg("shards").arg("layout");
    let ((kept, mut layout),): ((String, String),) = link.pipeline("HMGET", &pipeline).await?;
    if layout == "1" {
        upgrade(link, keys).await?;
        layout = LAYOUT.to_string();
    }
    if layout != LAYOUT.to_string() {
        return Err(StoreError::Configuration(format!(
            "{} holds a queue of layout {layout} under the prefix {}, but this version knows layout {LAYOUT}; use the version that made it, or another prefix",
            link.name(),
            config.prefix
        )));
    }
    if kept == config.shards.to_string() {
        return Ok(());
    }
    Err(StoreError::Configuration(format!(
        "{} holds a queue of {kept} shards under the prefix {}, but {} are configured; configure {kept}, or another prefix",
        link.name(),
        config.prefix,
        config.shards
    )))
}

/// Makes layout 2 of layout 1. Hosts of the older version do not start any more. Those that are running do
/// no harm: what is in a sequence they cannot read, so they leave it for others when its lease ends; and
/// their turn to check and repair the queue is taken for good.
async fn upgrade(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    let mut turn = redis::cmd("SET");
    turn.arg(keys.checked_before_sequences()).arg(LAYOUT);
    let _: Value = link.query("SET", &turn).await?;
    let mut layout = redis::cmd("HSET");
    layout.arg(keys.meta()).arg("layout").arg(LAYOUT);
    let _: Value = link.query("HSET", &layout).await?;
    tracing::info!("the queue is of layout {LAYOUT} now; older hosts can no longer start on it");
    Ok(())
}
