//! The words for what an attempt came to, as metrics, logs and records have them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An enum of words: each is its case's label wherever there is text. Binary records number the cases, so a new
/// one goes to the end.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$case_doc])* #[serde(rename = $word)] $case,)+
        }

        impl $name {
            /// The label used in metrics, logs and JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$case => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// The class of an attempt's answer, for metrics.
    StatusClass {
        /// 100–199
        Informational = "1xx",
        /// 200–299
        Success = "2xx",
        /// 300–399
        Redirection = "3xx",
        /// 400–499
        ClientError = "4xx",
        /// 500–599
        ServerError = "5xx",
        /// No answer came: the exchange itself failed.
        Transport = "transport",
        /// No exchange was made, or the status is none of the above.
        Unknown = "unknown",
    }
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
}

words! {
    /// What an attempt came to, in one word.
    Outcome {
        /// The receiver answered 200–299, or what a classifier plugin takes for it.
        Accepted = "accepted",
        /// The receiver answered otherwise.
        Failed = "failed",
        /// No answer came.
        TransportError = "transport_error",
        /// The delivery could not be sent as it stands: its endpoint is gone, or a header is unsafe.
        ValidationError = "validation_error",
        /// A plugin trapped, exceeded a limit, or answered with something unusable.
        PluginError = "plugin_error",
        /// A transform plugin asked for the event not to be sent.
        Skipped = "skipped",
    }
}

words! {
    /// The class of failure of an attempt that was not accepted.
    ErrorClass {
        /// The receiver answered with a status outside 200–299, or what a classifier plugin takes for it.
        Status = "status",
        /// The whole exchange did not end within its deadline.
        Timeout = "timeout",
        /// The host name did not resolve.
        Dns = "dns",
        /// No connection could be made.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The name resolved to an address that deliveries may not go to.
        AddressRefused = "address_refused",
        /// The connection broke, or what came back was not HTTP.
        Protocol = "protocol",
        /// The endpoint is missing, disabled, or no longer wants the event.
        Endpoint = "endpoint",
        /// A secret that the endpoint names cannot be had.
        Secret = "secret",
        /// The request cannot be built: an unsafe header or an unusable secret.
        Request = "request",
        /// A plugin failed.
        Plugin = "plugin",
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
