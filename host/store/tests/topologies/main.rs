//! The Redis store and stream on every topology: over TLS as a user with few permissions, on a
//! UNIX socket, on a cluster, and behind Sentinels.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod cluster;
mod connecting;
mod load;
mod sentinel;
mod support;
mod tls;
