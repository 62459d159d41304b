//! HTTP client of wasmhook: address rules, the exchange with a receiver, its classification.
//!
//! [`Client`] makes one POST and tells what came of it as an
//! [`Attempt`](wasmhook_core::attempt::Attempt); it never fails, for every failure is a result too.
//! [`HttpDeliverer`] puts a request builder and a secret resolver before it and is the
//! [`Deliverer`](wasmhook_core::ports::Deliverer) of a service that embeds the domain.
//!
//! Receivers are named by tenants, so they are not trusted: [`AddressPolicy`] decides which
//! addresses may be connected to, and the address that was judged is the one that is used.
#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod config;
pub mod deliverer;
pub mod error;
mod failure;
pub mod fetch;
mod lookups;
mod resolver;
mod retry_after;
mod tls;

pub use address::AddressPolicy;
pub use client::{Answer, Client};
pub use config::ClientConfig;
pub use deliverer::HttpDeliverer;
pub use error::ClientError;
pub use fetch::{Fetch, FetchError};
