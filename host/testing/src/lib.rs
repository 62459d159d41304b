//! Real parts for tests and benchmarks: a Redis server of its own and an HTTP receiver on loopback.
#![forbid(unsafe_code)]

mod receiver;
mod redis_server;

pub use receiver::{Answer, Received, Receiver};
pub use redis_server::{Durability, RedisServer};
