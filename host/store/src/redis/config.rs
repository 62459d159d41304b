//! Settings of the Redis store and stream.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::error::StoreError;

/// The most shards a deployment may have.
pub const MAX_SHARDS: u16 = 256;

/// How to reach Redis and what to call things there. Its debug print holds no credential.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, or `unix:///path`.
    pub url: String,
    /// The beginning of every key. Hosts that share it are one deployment.
    pub prefix: String,
    /// Over how many shards tenants are spread, 1 to [`MAX_SHARDS`]. Fixed for the life of a
    /// deployment's data: it is kept in Redis, and another count is refused.
    pub shards: u16,
    /// How long to try to connect at start, and how long one connection may take later on.
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection counts as lost.
    pub response_timeout: Duration,
    /// Key of the stream that producers push to, `<prefix>:events` by custom.
    pub stream: String,
    /// The stream's consumer group: one per deployment.
    pub group: String,
    /// This host's name within the group: one per host, and the same after a restart, so that it
    /// goes on at once with what it had not acknowledged.
    pub consumer: String,
    /// After how long unacknowledged entries of another host are taken over.
    pub claim_after: Duration,
}

impl RedisConfig {
    /// The defaults, for this server.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "wasmhook".to_owned(),
            shards: 4,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            stream: "wasmhook:events".to_owned(),
            group: "wasmhook".to_owned(),
            consumer: "host".to_owned(),
            claim_after: Duration::from_mins(1),
        }
    }

    /// Checks the settings and reads the address.
    pub(super) fn connection_info(&self) -> Result<ConnectionInfo, StoreError> {
        let refuse = |words: &str| Err(StoreError::Configuration(words.to_owned()));
        if self.prefix.is_empty() || self.prefix.contains(['{', '}', '\0']) {
            return refuse("the Redis prefix must not be empty or hold a brace or zero byte");
        }
        if !(1..=MAX_SHARDS).contains(&self.shards) {
            return refuse(&format!(
                "the number of Redis shards must be 1 to {MAX_SHARDS}, not {}",
                self.shards
            ));
        }
        if [&self.stream, &self.group, &self.consumer]
            .iter()
            .any(|name| name.is_empty())
        {
            return refuse("the Redis stream, group and consumer names must not be empty");
        }
        // The parser's error could quote the address, password included.
        self.url.as_str().into_connection_info().map_err(|_| {
            StoreError::Configuration(
                "the Redis address must be of the form redis://[user:password@]host[:port][/database]"
                    .to_owned(),
            )
        })
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self
            .connection_info()
            .map_or_else(|_| "invalid".to_owned(), |info| info.addr().to_string());
        f.debug_struct("RedisConfig")
            .field("server", &server)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("stream", &self.stream)
            .field("group", &self.group)
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_holds_the_password() {
        let good = RedisConfig::new("redis://user:hunter2@example.org:6380/1");
        let printed = format!("{good:?}");
        assert!(printed.contains("example.org:6380"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
        let bad = RedisConfig::new("redis//user:hunter2@example.org");
        assert!(!format!("{bad:?}").contains("hunter2"));
        let error = bad.connection_info().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn impossible_settings_are_refused() {
        let change: [fn(&mut RedisConfig); 5] = [
            |c| c.shards = 0,
            |c| c.shards = MAX_SHARDS + 1,
            |c| c.prefix = "a{b".to_owned(),
            |c| c.prefix.clear(),
            |c| c.group.clear(),
        ];
        for change in change {
            let mut config = RedisConfig::new("redis://localhost");
            change(&mut config);
            assert!(matches!(
                config.connection_info(),
                Err(StoreError::Configuration(_))
            ));
        }
    }
}
