//! Domain of wasmhook: what an event, an endpoint and a delivery are, and every rule about them.
//!
//! This crate knows no runtime, no store and no HTTP client. A service that brings its own can
//! embed it: implement the traits in [`ports`], give a [`Catalog`] to a [`Dispatcher`] that
//! turns events into deliveries, and let a [`Handler`] work them off. `examples/embed.rs` in this
//! crate is a whole service in one file.
//!
//! # The way of an event
//!
//! 1. [`EventDraft::accept`] normalises and validates what a producer pushed.
//! 2. [`Catalog::check`] refuses types that nobody listed; it is fail-closed.
//! 3. [`Dispatcher::dispatch`] makes one pending [`Delivery`] per matching [`Endpoint`], with an id
//!    that is the same however often the event is pushed.
//! 4. [`Handler::handle`] loads the endpoint again, has a [`ports::Deliverer`] make the exchange
//!    that [`RequestBuilder`] describes, records the attempt and says what comes next.
//! 5. [`replay()`] runs a finished delivery again.
//!
//! Secrets are in [`SigningSecret`], which can be neither printed nor serialised.
#![forbid(unsafe_code)]

pub mod attempt;
pub mod catalog;
pub mod classification;
pub mod clock;
pub mod delivery;
pub mod dispatch;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod handler;
pub mod headers;
pub mod ids;
pub mod keyring;
pub mod label;
pub mod ports;
pub mod quota;
pub mod replay;
pub mod request;
pub mod retry;
pub mod secret;
pub mod sequence;
pub mod signing;

pub use attempt::{AttemptResult, ErrorClass, Outcome, PluginUse, StatusClass, Wait};
pub use catalog::Catalog;
pub use classification::Judgement;
pub use clock::{Clock, SystemClock};
pub use delivery::{Conclusion, Delivery, DeliveryState, Job, JobPayload};
pub use dispatch::Dispatcher;
pub use endpoint::{
    BodyForm, Endpoint, EndpointPolicy, EndpointUrl, ResolvedEndpoint, SignatureProfile,
    Subscription,
};
pub use error::{Context, Error, Result};
pub use event::{Event, EventDraft, EventType, Payload};
pub use handler::Handler;
pub use headers::{SafeHeaders, SignatureHeaders};
pub use ids::{DeliveryId, EndpointId, EventId, OrderingKey, PluginName, SecretName, TenantId};
pub use keyring::Keyring;
pub use quota::{Quota, Weight};
pub use replay::replay;
pub use request::{OutgoingRequest, RequestBuilder, UnsignedRequest};
pub use retry::RetryPolicy;
pub use secret::SigningSecret;
pub use sequence::{EndpointOrdering, OnDeadLetter, OrderBy, Sequence};
