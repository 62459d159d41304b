//! What a server says of itself, and whether it is what the settings say.
//!
//! `HELLO` may be asked by every user, whatever its permissions.

use std::time::Duration;

use futures_util::future::select_ok;
use redis::{AsyncConnectionConfig, Client, RedisError, Value};

use super::address::Servers;
use super::{Timing, failure};
use crate::error::StoreError;

/// Functions came with this version.
const OLDEST: u32 = 7;

/// What the settings take a server for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Single,
    Cluster,
    Sentinel,
}

/// What a server says of itself.
#[derive(Default)]
pub(super) struct Greeting {
    version: String,
    mode: String,
    role: String,
}

impl Greeting {
    /// Whether this server takes writes.
    pub(super) fn is_master(&self) -> bool {
        self.role == "master"
    }

    /// Whether this is what was expected, in one sentence.
    pub(super) fn check(&self, name: &str, expected: Expected) -> Result<(), StoreError> {
        let refuse = |words: String| Err(StoreError::Configuration(words));
        let version: u32 = self
            .version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or_default();
        match (self.mode.as_str(), expected) {
            ("sentinel", Expected::Sentinel)
            | ("cluster", Expected::Cluster)
            | ("standalone", Expected::Single) => {}
            ("sentinel", _) => {
                return refuse(format!(
                    "{name} is a Sentinel; set redis.topology to sentinel"
                ));
            }
            ("cluster", _) => {
                return refuse(format!(
                    "{name} is a node of a cluster; set redis.topology to cluster"
                ));
            }
            (_, Expected::Cluster) => {
                return refuse(format!(
                    "{name} is not in cluster mode; set redis.topology to single or sentinel"
                ));
            }
            (_, Expected::Sentinel) => {
                return refuse(format!(
                    "{name} is not a Sentinel; expected the addresses of Sentinels, often at port 26379"
                ));
            }
            // A proxy may call its mode what it likes.
            (_, Expected::Single) => {}
        }
        if version < OLDEST && expected != Expected::Sentinel {
            return refuse(format!(
                "{name} is version {}, which has no functions; version {OLDEST}.0 or newer is needed",
                if self.version.is_empty() {
                    "unknown"
                } else {
                    &self.version
                }
            ));
        }
        if expected == Expected::Single && self.role == "replica" {
            // It may be about to be promoted.
            return Err(StoreError::Unavailable {
                store: name.to_owned(),
                reason: "it is a replica, which takes no writes; name its master, or set redis.topology to sentinel".to_owned(),
            });
        }
        Ok(())
    }
}

/// Connects once and asks.
pub(super) async fn greet(client: &Client, patience: Duration) -> Result<Greeting, RedisError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&settings)
        .await?;
    let mut questions = redis::pipe();
    questions.cmd("HELLO");
    // Fails while the server still loads its data.
    questions.cmd("PING");
    questions.ignore_errors();
    let answers: Vec<Result<Value, RedisError>> = questions.query_async(&mut connection).await?;
    let mut answers = answers.into_iter();
    let mut greeting = Greeting::default();
    match answers.next() {
        Some(Ok(Value::Array(parts))) => {
            let mut parts = parts.into_iter();
            while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else {
                    continue;
                };
                let value = String::from_utf8_lossy(&value).into_owned();
                match name.as_slice() {
                    b"version" => greeting.version = value,
                    b"mode" => greeting.mode = value,
                    b"role" => greeting.role = value,
                    _ => {}
                }
            }
        }
        // A server too old for the question says of what version it is by that.
        Some(Err(error)) if !error.to_string().contains("unknown command") => return Err(error),
        _ => {}
    }
    match answers.next() {
        Some(Err(error)) if failure::passes(&error) => Err(error),
        _ => Ok(greeting),
    }
}

/// Asks all configured servers at once and goes by the first that answers.
pub(super) async fn greet_any(
    servers: &Servers,
    name: &str,
    timing: &Timing,
    expected: Expected,
) -> Result<(), StoreError> {
    let wrong = |error: RedisError| failure::failure(name, "connect", &error);
    let clients = servers.clients().map_err(wrong)?;
    let greetings = clients
        .iter()
        .map(|client| Box::pin(greet(client, timing.connect)));
    let (greeting, _) = select_ok(greetings).await.map_err(wrong)?;
    greeting.check(name, expected)
}
