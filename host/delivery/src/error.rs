//! Why a client could not be made.

/// A client could not be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A value of the configuration makes no sense.
    #[error("invalid delivery client: field `{field}`: {expected}")]
    Config {
        /// The field of [`ClientConfig`](crate::ClientConfig).
        field: &'static str,
        /// What was expected of it.
        expected: &'static str,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up for the delivery client")]
    Tls(#[source] rustls::Error),
    /// The HTTP library refused the settings.
    #[error("the delivery client could not be built")]
    Http(#[source] reqwest::Error),
}
