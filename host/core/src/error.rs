//! The one error type of the domain.

use std::borrow::Cow;
use std::fmt;

/// Result of a domain operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed and which rule was broken, in words that never hold a payload or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context(Cow<'static, str>);

impl Context {
    /// Names a field and what was expected of it.
    pub fn field(name: &str, expected: &str) -> Self {
        Self(Cow::Owned(format!("field `{name}`: {expected}")))
    }

    /// A context in free words. The caller keeps contents of payloads and secrets out of it.
    pub fn words(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the domain refused or failed. The first words of each text are fixed by the delivery
/// contract; what follows the colon names the field and the rule, never content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint lacks something it needs, or its URL is not acceptable.
    #[error("invalid webhook endpoint: {0}")]
    InvalidEndpoint(Context),
    /// An event, an event type or a catalog entry is malformed.
    #[error("invalid webhook event: {0}")]
    InvalidEvent(Context),
    /// A well-formed event whose type is not in the catalog, or an empty catalog.
    #[error("unsupported webhook event: {0}")]
    UnsupportedEvent(Context),
    /// A header that the host reserves, or that could split the request.
    #[error("unsafe webhook header: {0}")]
    UnsafeHeader(Context),
    /// A delivery, job or delivery id that cannot be right.
    #[error("invalid webhook delivery: {0}")]
    InvalidDelivery(Context),
    /// Something of one tenant met something of another, or an endpoint no longer wants the event.
    #[error("webhook tenant mismatch: {0}")]
    TenantMismatch(Context),
    /// The delivery or its endpoint does not exist for this tenant.
    #[error("webhook delivery not found: {0}")]
    DeliveryNotFound(Context),
    /// An attempt was not accepted by the receiver.
    #[error("webhook delivery failed: {0}")]
    DeliveryFailed(Context),
    /// A dispatcher, handler or replay was made without the store it needs.
    #[error("webhook delivery store not configured: {0}")]
    StoreNotConfigured(Context),
    /// The store answered with an error of its own. Not in the contract, which leaves it open.
    #[error("webhook delivery store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn event_field(name: &str, expected: &str) -> Self {
        Self::InvalidEvent(Context::field(name, expected))
    }

    pub(crate) fn endpoint_field(name: &str, expected: &str) -> Self {
        Self::InvalidEndpoint(Context::field(name, expected))
    }

    pub(crate) fn delivery_field(name: &str, expected: &str) -> Self {
        Self::InvalidDelivery(Context::field(name, expected))
    }

    /// A short machine-readable name for the kind of error, for APIs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidEndpoint(_) => "invalid_endpoint",
            Self::InvalidEvent(_) => "invalid_event",
            Self::UnsupportedEvent(_) => "unsupported_event",
            Self::UnsafeHeader(_) => "unsafe_header",
            Self::InvalidDelivery(_) => "invalid_delivery",
            Self::TenantMismatch(_) => "tenant_mismatch",
            Self::DeliveryNotFound(_) => "delivery_not_found",
            Self::DeliveryFailed(_) => "delivery_failed",
            Self::StoreNotConfigured(_) => "store_not_configured",
            Self::Store(_) => "store_failed",
        }
    }
}
