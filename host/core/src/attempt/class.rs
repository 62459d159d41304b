//! The words for what an attempt came to, as metrics, logs and records have them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of an attempt's answer, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StatusClass {
    /// 100–199
    #[serde(rename = "1xx")]
    Informational,
    /// 200–299
    #[serde(rename = "2xx")]
    Success,
    /// 300–399
    #[serde(rename = "3xx")]
    Redirection,
    /// 400–499
    #[serde(rename = "4xx")]
    ClientError,
    /// 500–599
    #[serde(rename = "5xx")]
    ServerError,
    /// No answer came: the exchange itself failed.
    #[serde(rename = "transport")]
    Transport,
    /// No exchange was made, or the status is none of the above.
    #[serde(rename = "unknown")]
    Unknown,
}

impl StatusClass {
    /// The class of a status code.
    pub fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Unknown,
        }
    }

    /// The label, as in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Transport => "transport",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for StatusClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an attempt came to, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver answered 200–299, or what a classifier plugin takes for it.
    Accepted,
    /// The receiver answered otherwise.
    Failed,
    /// No answer came.
    TransportError,
    /// The delivery could not be sent as it stands: its endpoint is gone, or a header is unsafe.
    ValidationError,
    /// A plugin trapped, exceeded a limit, or answered with something unusable.
    PluginError,
    /// A transform plugin asked for the event not to be sent.
    Skipped,
}

impl Outcome {
    /// The label used in metrics, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::TransportError => "transport_error",
            Self::ValidationError => "validation_error",
            Self::PluginError => "plugin_error",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The class of failure of an attempt that was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The receiver answered with a status outside 200–299, or what a classifier plugin takes for it.
    Status,
    /// The whole exchange did not end within its deadline.
    Timeout,
    /// The host name did not resolve.
    Dns,
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The name resolved to an address that deliveries may not go to.
    AddressRefused,
    /// The connection broke, or what came back was not HTTP.
    Protocol,
    /// The endpoint is missing, disabled, or no longer wants the event.
    Endpoint,
    /// A secret that the endpoint names cannot be had.
    Secret,
    /// The request cannot be built: an unsafe header or an unusable secret.
    Request,
    /// A plugin failed.
    Plugin,
}

impl ErrorClass {
    /// The label used in metrics, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::AddressRefused => "address_refused",
            Self::Protocol => "protocol",
            Self::Endpoint => "endpoint",
            Self::Secret => "secret",
            Self::Request => "request",
            Self::Plugin => "plugin",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_classes_carry_the_contracts_labels() {
        let classes: Vec<_> = [101, 200, 302, 404, 503, 999]
            .into_iter()
            .map(|s| StatusClass::of(s).as_str())
            .collect();
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx", "unknown"]);
    }
}
