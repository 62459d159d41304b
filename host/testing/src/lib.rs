//! Real parts for tests and benchmarks: Redis servers of their own, alone, as a cluster or watched
//! by Sentinels, and an HTTP receiver, all on loopback.
#![forbid(unsafe_code)]

mod certificates;
mod leash;
mod receiver;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;

use std::io;
use std::time::{Duration, Instant};

pub use certificates::Certificates;
pub use receiver::{Answer, Received, Receiver};
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::RedisSentinels;
pub use redis_server::{Durability, RedisServer, free_port};

/// Looks again and again until it is so.
pub(crate) fn wait_until(
    what: &str,
    patience: Duration,
    mut so: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let start = Instant::now();
    loop {
        let last = so();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > patience {
            let why = last.map_or_else(|error| format!(": {error}"), |_| String::new());
            return Err(io::Error::other(format!(
                "{what}, not in {patience:?}{why}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
