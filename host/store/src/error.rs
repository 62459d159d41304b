//! Why a store could not do what it was asked.

/// An error of a store. Texts hold no payload and no credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached; what was asked may be repeated.
    #[error("{store} is not reachable: {reason}")]
    Unavailable {
        /// Which store, without credentials.
        store: String,
        /// Why.
        reason: String,
    },
    /// The store has a write, but fewer replicas confirmed it in time than it was to be on. It must
    /// not be acknowledged; it may be repeated.
    #[error(
        "{store} has only {reached} of {wanted} replicas that confirmed the write within {within:?} (redis.wait_replicas); it was not acknowledged and may be repeated"
    )]
    NotReplicated {
        /// Which store, without credentials.
        store: String,
        /// How many replicas confirmed.
        reached: i64,
        /// How many had to.
        wanted: u32,
        /// How long they had.
        within: std::time::Duration,
    },
    /// The store answered with an error.
    #[error("{store} refused {operation}: {reason}")]
    Refused {
        /// Which store, without credentials.
        store: String,
        /// What was asked.
        operation: &'static str,
        /// What it said.
        reason: String,
    },
    /// A record cannot be read; the key or row is named.
    #[error("the record {0} cannot be read; it is damaged or of a newer version")]
    Corrupt(String),
    /// Another host has the embedded store open.
    #[error(
        "the embedded store {0} is in use by another wasmhook; stop it, or choose another data folder"
    )]
    InUse(String),
    /// The folder or file cannot be used.
    #[error("cannot use {path} for the embedded store: {reason}")]
    Path {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// No such delivery for this tenant.
    #[error("webhook delivery not found")]
    NotFound,
    /// Only finished deliveries can be replayed.
    #[error("only a succeeded or dead_letter delivery can be replayed, this one is {0}")]
    NotFinished(wasmhook_core::DeliveryState),
    /// Only a dead letter that blocks its sequence can be skipped.
    #[error(
        "only a dead letter that blocks a sequence can be skipped; this delivery is {0} and blocks none"
    )]
    NotBlocking(wasmhook_core::DeliveryState),
    /// A setting that cannot be.
    #[error("{0}")]
    Configuration(String),
}
