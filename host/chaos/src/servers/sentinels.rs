//! Failovers by Sentinels.

use std::time::{Duration, Instant};

use wasmhook_testing::RedisSentinels;

use super::until;

/// After which time a Sentinel is asked again: it may refuse, or give up, for it was busy with the last
/// failover or has not heard of the replica for a while. Longer than it tries, and no part of the ten seconds after
/// which the others look: one that sees a master each time that it looks makes a replica of it again, and that went on
/// for two minutes when it was asked every ten seconds.
const AGAIN: Duration = Duration::from_secs(7);

/// Asks a Sentinel for a failover until it names another master. The old one goes on as a master until the
/// Sentinels make it a replica, some ten seconds later.
pub(super) async fn promote(servers: &RedisSentinels, old: usize) -> anyhow::Result<()> {
    let words = ["SENTINEL", "FAILOVER", RedisSentinels::MASTER];
    let mut asked: Option<Instant> = None;
    until("a Sentinel promotes a replica", || {
        if servers.named()? != old {
            return Ok(true);
        }
        if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
            asked = Some(Instant::now());
            let () = servers.sentinels()[0].ask(&words)?;
        }
        Ok(false)
    })
    .await
}

/// The other server, for there are two.
pub(super) fn replica_of(servers: &RedisSentinels, master: usize) -> usize {
    (master + 1) % servers.servers().len()
}
