//! Failovers by Sentinels.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use wasmhook_testing::RedisSentinels;

use super::blocking;

/// How long a Sentinel may refuse a failover, as it does while it is busy with the last one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a Sentinel for a failover. The old master goes on as one until the Sentinels make it a
/// replica, some ten seconds later.
pub(super) async fn promote(servers: &RedisSentinels) -> anyhow::Result<()> {
    let words = ["SENTINEL", "FAILOVER", RedisSentinels::MASTER];
    let start = Instant::now();
    loop {
        match blocking(|| servers.sentinels()[0].ask::<()>(&words)) {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error).context("the Sentinels promote no replica");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// The other server, for there are two.
pub(super) fn replica_of(servers: &RedisSentinels, master: usize) -> usize {
    (master + 1) % servers.servers().len()
}
