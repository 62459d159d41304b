//! Reaching the server: connecting with a bound, reconnecting, and what errors mean.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
};
use tokio::time::Instant;

use super::config::RedisConfig;
use crate::error::StoreError;

/// The longest text of a server's error that is passed on.
const MAX_REASON: usize = 300;

/// A server and a connection to it that heals itself.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    manager: ConnectionManager,
    name: Arc<str>,
    connect_timeout: Duration,
}

impl Link {
    /// Connects, trying for as long as the settings say.
    pub(super) async fn connect(config: &RedisConfig) -> Result<Self, StoreError> {
        let info = config.connection_info()?;
        let name: Arc<str> = format!("Redis at {}", info.addr()).into();
        let client = Client::open(info).map_err(|error| failure(&name, "connect", &error))?;
        let deadline = Instant::now() + config.connect_timeout;
        let mut pause = Duration::from_millis(50);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, probe(&client, left)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    let error = failure(&name, "connect", &error);
                    let permanent = !matches!(error, StoreError::Unavailable { .. });
                    if permanent || Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                }
                Err(_) => {
                    return Err(StoreError::Unavailable {
                        store: name.to_string(),
                        reason: format!("no answer within {:?}", config.connect_timeout),
                    });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            // The crate's own default is half a second, which a busy server can exceed.
            .set_response_timeout(Some(config.response_timeout))
            .set_number_of_retries(4)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_secs(1))
            .set_pipeline_buffer_size(1024);
        let manager = client
            .get_connection_manager_with_config(settings)
            .await
            .map_err(|error| failure(&name, "connect", &error))?;
        Ok(Self {
            client,
            manager,
            name,
            connect_timeout: config.connect_timeout,
        })
    }

    /// The server, without credentials.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The client, for connections of their own.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// How long making a connection may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// A connection of its own whose answers may take any time: for commands that block.
    pub(super) async fn blocking(&self) -> Result<MultiplexedConnection, StoreError> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None);
        self.client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .map_err(|error| self.failure("connect", &error))
    }

    /// One command, as the server answers it.
    pub(super) async fn raw(&self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.manager.clone()).await
    }

    /// One command.
    pub(super) async fn query<T: redis::FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        command
            .query_async(&mut self.manager.clone())
            .await
            .map_err(|error| self.failure(operation, &error))
    }

    /// Several commands in one go.
    pub(super) async fn pipeline<T: redis::FromRedisValue>(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, StoreError> {
        pipeline
            .query_async(&mut self.manager.clone())
            .await
            .map_err(|error| self.failure(operation, &error))
    }

    /// What an error means to who asked.
    pub(super) fn failure(&self, operation: &'static str, error: &RedisError) -> StoreError {
        failure(&self.name, operation, error)
    }

    /// An answer that makes no sense.
    pub(super) fn unexpected(&self, operation: &'static str) -> StoreError {
        StoreError::Refused {
            store: self.name.to_string(),
            operation,
            reason: "the answer has an unexpected form".to_owned(),
        }
    }
}

async fn probe(client: &Client, left: Duration) -> Result<(), RedisError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(left))
        .set_response_timeout(Some(left));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&settings)
        .await?;
    redis::cmd("PING").exec_async(&mut connection).await
}

/// Whether the same request may work later, with nothing changed by who asks.
fn passes(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(
            error.kind(),
            ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(
                    BusyLoading | MasterDown | ClusterDown | TryAgain | ReadOnly | Moved | Ask
                )
        )
        || matches!(
            error.code(),
            Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY" | "UNBLOCKED")
        )
}

fn failure(store: &str, operation: &'static str, error: &RedisError) -> StoreError {
    let store = store.to_owned();
    let mut reason = match error.kind() {
        ErrorKind::AuthenticationFailed => "the user name or password was not accepted".to_owned(),
        _ => error.to_string(),
    };
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON)
            .rev()
            .find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or_default());
    }
    if passes(error) {
        StoreError::Unavailable { store, reason }
    } else {
        StoreError::Refused {
            store,
            operation,
            reason,
        }
    }
}
