//! The real binary against real Redis, real sockets and real components.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod delivering;
mod events;
mod outages;
mod plugins;
mod pressure;
mod pushing;
#[path = "../support/mod.rs"]
mod support;
