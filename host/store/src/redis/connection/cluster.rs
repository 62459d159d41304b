//! Connecting to a Redis Cluster and finding its nodes.

use std::time::Duration;

use redis::{RedisError, Value};

use super::address::Servers;
use super::greeting::{Expected, greet_any};
use super::target::{Connection, Target};
use super::{Timing, failure};
use crate::error::StoreError;

/// How often the client repeats a call by itself: with MOVED and ASK it goes elsewhere, with
/// TRYAGAIN and CLUSTERDOWN it waits. With the waits below this is a fraction of a second in all,
/// enough for a redirection or two; who asks repeats after that.
const RETRIES: u32 = 4;
/// The shortest and the longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Connects to a cluster by any of the addresses.
pub(super) async fn connect(
    servers: &Servers,
    name: &str,
    timing: &Timing,
) -> Result<Target, StoreError> {
    greet_any(servers, name, timing, Expected::Cluster).await?;
    let wrong = |error: RedisError| failure::failure(name, "connect", &error);
    let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let client = |response: Duration| {
        servers
            .cluster()
            .connection_timeout(timing.connect)
            .response_timeout(response)
            .retries(RETRIES)
            .min_retry_wait(millis(WAITS.0))
            .max_retry_wait(millis(WAITS.1))
            .build()
            .map_err(wrong)
    };
    // What is read must not be read twice without a word, so this one repeats nothing.
    let plain = servers
        .cluster()
        .connection_timeout(timing.connect)
        .retries(0)
        .build()
        .map_err(wrong)?;
    let general = client(timing.response)?;
    let prompt = general.get_async_connection().await.map_err(wrong)?;
    let general = general.get_async_connection().await.map_err(wrong)?;
    let mut confirmed = Vec::new();
    if let Some(wait) = &timing.wait {
        let client = client(timing.response + wait.timeout)?;
        for _ in 0..Target::confirmed_connections(timing) {
            confirmed.push(client.get_async_connection().await.map_err(wrong)?);
        }
    }
    Ok(Target::cluster(general, prompt, confirmed, plain))
}

/// Host and port of every node that serves slots, as the cluster tells them.
pub(super) async fn nodes(
    connection: Connection,
    first_host: &str,
) -> Result<Vec<(String, u16)>, RedisError> {
    servers(connection, first_host, usize::MAX).await
}

/// Host and port of every master that serves slots.
pub(super) async fn masters(
    connection: Connection,
    first_host: &str,
) -> Result<Vec<(String, u16)>, RedisError> {
    // Each range names its master first.
    servers(connection, first_host, 1).await
}

/// The first `most` servers of each range of slots.
async fn servers(
    mut connection: Connection,
    first_host: &str,
    most: usize,
) -> Result<Vec<(String, u16)>, RedisError> {
    let slots: Value = redis::cmd("CLUSTER")
        .arg("SLOTS")
        .query_async(&mut connection)
        .await?;
    let mut nodes = Vec::new();
    for range in list(slots) {
        // The first two say from which slot to which.
        for node in list(range).into_iter().skip(2).take(most) {
            let mut parts = list(node).into_iter();
            let host = match parts.next() {
                Some(Value::BulkString(host)) => String::from_utf8(host).unwrap_or_default(),
                _ => String::new(),
            };
            let Some(Value::Int(port)) = parts.next() else {
                continue;
            };
            // A node that does not know its own name is reached as the cluster was.
            let host = if host.is_empty() || host == "?" {
                first_host.to_owned()
            } else {
                host
            };
            let node = (host, u16::try_from(port).unwrap_or_default());
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }
    Ok(nodes)
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(parts) => parts,
        _ => Vec::new(),
    }
}
