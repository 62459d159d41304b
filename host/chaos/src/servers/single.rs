//! What only a server that is alone suffers.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use wasmhook_testing::RedisServer;

use super::{Servers, blocking};
use crate::proxy::Network;

impl Servers {
    /// Kills the server and starts it again later.
    pub(crate) async fn kill(&mut self, down: Duration) -> anyhow::Result<()> {
        let Self::Single { server, .. } = self else {
            bail!("there are several servers");
        };
        server.kill()?;
        tokio::time::sleep(down).await;
        blocking(|| server.restart())?;
        Ok(())
    }

    /// Has the server follow a master that is not there: nothing listens on port 1.
    pub(crate) async fn read_only(&self, lasts: Duration) -> anyhow::Result<()> {
        let server = self.alone()?;
        tell(server, &["REPLICAOF", "127.0.0.1", "1"])?;
        ensure_refuses_writes(server)?;
        tokio::time::sleep(lasts).await;
        tell(server, &["REPLICAOF", "NO", "ONE"])
    }

    /// Gives the server less memory than it uses.
    pub(crate) async fn fill_memory(&self, lasts: Duration) -> anyhow::Result<()> {
        let server = self.alone()?;
        let limit = (used_memory(server)? * 9 / 10).to_string();
        tell(server, &["CONFIG", "SET", "maxmemory", &limit])?;
        ensure_refuses_writes(server)?;
        tokio::time::sleep(lasts).await;
        tell(server, &["CONFIG", "SET", "maxmemory", "0"])
    }

    /// Lets the network between a host and the server be so for a while.
    pub(crate) async fn network(
        &self,
        host: usize,
        network: Network,
        lasts: Duration,
    ) -> anyhow::Result<()> {
        let Self::Single { proxies, .. } = self else {
            bail!("there is no proxy before several servers");
        };
        proxies[host].set(network);
        tokio::time::sleep(lasts).await;
        proxies[host].set(Network::Fine);
        Ok(())
    }

    fn alone(&self) -> anyhow::Result<&RedisServer> {
        match self {
            Self::Single { server, .. } => Ok(server),
            Self::Sentinels(_) | Self::Cluster(_) => bail!("there are several servers"),
        }
    }
}

fn tell(server: &RedisServer, words: &[&str]) -> anyhow::Result<()> {
    Ok(blocking(|| server.ask(words))?)
}

/// A fault that does not bite proves nothing.
fn ensure_refuses_writes(server: &RedisServer) -> anyhow::Result<()> {
    let written = tell(server, &["SET", "wasmhook-chaos", "1"]);
    ensure!(written.is_err(), "Redis still writes");
    Ok(())
}

fn used_memory(server: &RedisServer) -> anyhow::Result<u64> {
    let info: String = blocking(|| server.ask(&["INFO", "memory"]))?;
    info.lines()
        .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
        .context("Redis does not say how much memory it uses")
}
