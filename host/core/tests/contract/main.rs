//! The delivery contract, row by row, seen from outside the crate: what a service that embeds
//! `wasmhook-core` can rely on. Rules of a single type are tested beside the type.
#![allow(
    clippy::unwrap_used,
    reason = "what a helper cannot do fails the test that asked for it"
)]

mod support;

mod dispatch;
mod errors;
mod handling;
mod replay;
mod request;
mod secrets;
