//! What plugins can do besides transforming and resolving, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod answers;
mod key_value;
mod logs;
mod planned;
mod requests;
mod signing;
#[path = "../support/mod.rs"]
mod support;
