//! Settings of the client, each default with its reason.

use std::time::Duration;

use crate::address::AddressPolicy;
use crate::error::ClientError;

/// How deliveries are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// One deadline over the whole exchange: lookup, connection, TLS, request, response headers and
    /// body. 10 s by default, as the delivery contract says. More than zero.
    pub timeout: Duration,
    /// The part of [`timeout`](Self::timeout) that the connection, TLS included, may take. 5 s by
    /// default: a receiver that is down is told from one that is slow while there is time left.
    pub connect_timeout: Duration,
    /// The most bytes of a response body that are read and kept as the attempt's excerpt. 4096 by
    /// default, as the delivery contract says. A longer body costs the connection, which is closed
    /// rather than drained.
    pub response_cap: usize,
    /// Where deliveries may go. The public internet only by default.
    pub addresses: AddressPolicy,
    /// The most idle connections kept for one receiver. 64 by default: as many as a busy receiver
    /// is likely to be sent to at once.
    pub max_idle_per_host: usize,
    /// How long an idle connection is kept. 30 s by default, below the 60 s after which common
    /// servers close theirs, so that requests seldom meet a connection that is just going away.
    pub idle_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            response_cap: 4096,
            addresses: AddressPolicy::default(),
            max_idle_per_host: 64,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

impl ClientConfig {
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let field = if self.timeout.is_zero() {
            "timeout"
        } else if self.connect_timeout.is_zero() {
            "connect_timeout"
        } else {
            return Ok(());
        };
        Err(ClientError::Config {
            field,
            expected: "expected more than zero",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_contracts() {
        let config = ClientConfig::default();
        assert_eq!(config.timeout, Duration::from_secs(10));
        assert_eq!(config.response_cap, 4096);
        assert!(!config.addresses.allow_private);
        config.check().unwrap();
    }

    #[test]
    fn a_deadline_of_zero_is_refused_by_name() {
        let config = ClientConfig {
            timeout: Duration::ZERO,
            ..ClientConfig::default()
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "invalid delivery client: field `timeout`: expected more than zero"
        );
    }
}
