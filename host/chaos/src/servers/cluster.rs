//! Promotions and moves of slots in a cluster.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use wasmhook_testing::RedisCluster;

use super::{blocking, until};
use crate::fault::Part;
use crate::workload::{PREFIX, STREAM};

/// Keys that are moved by one command, which holds up both servers.
const AT_ONCE: usize = 1000;

/// The slot that has this part of the keys.
pub(super) fn slot(cluster: &RedisCluster, of: Part) -> io::Result<u16> {
    match of {
        Part::Stream => cluster.slot(STREAM),
        Part::Shard(shard) => cluster.slot(&format!("{{{PREFIX}:{shard}}}:")),
    }
}

/// Asks a replica of this master to take its place. The master holds up writes until the replica has all.
pub(super) fn promote(cluster: &RedisCluster, master: usize) -> anyhow::Result<()> {
    blocking(|| {
        let replica = cluster.replica_of(master)?;
        cluster.all()[replica].ask::<()>(&["CLUSTER", "FAILOVER"])
    })
    .context("no replica takes its master's place")
}

/// Moves the slot of a part in steps, as a tool that balances a cluster does, but slower.
pub(super) async fn move_slot(
    cluster: &RedisCluster,
    of: Part,
    to: usize,
    steps: u32,
    pause: Duration,
) -> anyhow::Result<()> {
    let (slot, from, others) = blocking(|| {
        let slot = slot(cluster, of)?;
        let from = cluster.owner(slot)?;
        let mut others = cluster.masters()?;
        others.retain(|master| *master != from);
        Ok::<_, io::Error>((slot, from, others))
    })?;
    let goal = *others
        .get(to % others.len().max(1))
        .context("there is no other master")?;
    let words = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()];
    let keys: usize = blocking(|| cluster.all()[from].ask(&words))?;
    ensure!(keys > 0, "there is nothing to move in slot {slot}");
    let commands = keys.div_ceil(steps.max(1) as usize * AT_ONCE).max(1);
    let at_once = keys.div_ceil(steps.max(1) as usize * commands);
    blocking(|| cluster.begin_move(slot, goal))?;
    tokio::time::sleep(pause).await;
    let mut moved = 0;
    while blocking(|| cluster.move_keys(slot, goal, at_once))? {
        moved += 1;
        if moved % commands == 0 {
            tokio::time::sleep(pause).await;
        }
    }
    blocking(|| cluster.end_move(slot, goal))?;
    until("the slot has moved", || Ok(cluster.owner(slot)? == goal)).await
}
