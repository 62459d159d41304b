//! What a plugin's author does on a machine of their own: the real binary, real tools, real components.
//!
//! `cargo xtask test` skips the tests, by their names, of the languages whose tools are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod answers;
mod checking;
mod desk;
mod measuring;
mod projects;
mod recording;
mod signing;
#[path = "../support/mod.rs"]
mod support;
mod trying;
