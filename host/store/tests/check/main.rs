//! Checks of the queue: sound after any work, each damage is found and mended, and work goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod embedded_store;
mod in_order;
mod queue;
mod redis_store;
mod steps;
mod verdict;
mod work;
