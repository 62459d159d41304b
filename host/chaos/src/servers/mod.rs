//! The Redis servers of a site, by their topology.

mod cluster;
mod sentinels;
mod single;

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use redis::FromRedisValue;
use wasmhook_store::redis::{RedisConfig, Sentinels as Watchers, Topology};
use wasmhook_testing::{Durability, RedisCluster, RedisSentinels, RedisServer};

use crate::fault::Part;
use crate::producer::Door;
use crate::proxy::Proxy;
use crate::workload::{GROUP, STREAM, Store};

/// How long servers may take to agree and to have each other's data again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What replicas there are for a write to be confirmed by: all, so that whichever is promoted has
/// everything that was acknowledged.
const REPLICAS: u32 = 1;

/// The servers. They write to disk before they answer, and end when this is dropped.
pub(crate) enum Servers {
    /// One, and a proxy to it for each host.
    Single {
        server: RedisServer,
        proxies: Vec<Proxy>,
    },
    Sentinels(RedisSentinels),
    Cluster(RedisCluster),
}

impl Servers {
    /// Starts them; none for a store that needs none.
    pub(crate) async fn start(store: Store) -> anyhow::Result<Option<Self>> {
        let always = Durability::Always;
        Ok(Some(match store {
            Store::Embedded => return Ok(None),
            Store::Redis => {
                let server = blocking(|| RedisServer::start_with(always, &[]))?;
                let mut proxies = Vec::new();
                for _ in 0..store.hosts() {
                    proxies.push(Proxy::start(server.port()).await?);
                }
                Self::Single { server, proxies }
            }
            Store::Sentinels => {
                let replicas = REPLICAS as usize;
                Self::Sentinels(blocking(|| RedisSentinels::start(replicas, always, &[]))?)
            }
            Store::Cluster => Self::Cluster(blocking(|| RedisCluster::start(3, true, always))?),
        }))
    }

    /// The lines below `[redis]` of a host's configuration.
    pub(crate) fn settings(&self, host: usize) -> String {
        let urls = |urls: Vec<String>| format!("urls = {urls:?}\nwait_replicas = {REPLICAS}\n");
        match self {
            Self::Single { proxies, .. } => {
                format!("url = \"redis://127.0.0.1:{}\"\n", proxies[host].port())
            }
            Self::Sentinels(servers) => format!(
                "topology = \"sentinel\"\nsentinel_master = \"{}\"\n{}",
                RedisSentinels::MASTER,
                urls(servers.urls())
            ),
            Self::Cluster(cluster) => {
                format!("topology = \"cluster\"\n{}", urls(cluster.urls()))
            }
        }
    }

    /// The store, as a tool beside the hosts connects to it.
    pub(crate) fn config(&self) -> RedisConfig {
        let secret = |urls: Vec<String>| urls.into_iter().map(Into::into).collect();
        RedisConfig::with_topology(match self {
            Self::Single { server, .. } => Topology::Single(server.url().into()),
            Self::Sentinels(servers) => Topology::Sentinel(Watchers {
                urls: secret(servers.urls()),
                master: RedisSentinels::MASTER.to_owned(),
                username: None,
                password: None,
            }),
            Self::Cluster(cluster) => Topology::Cluster(secret(cluster.urls())),
        })
    }

    /// The way of producers that know Redis only.
    pub(crate) fn door(&self) -> Door {
        match self {
            Self::Single { server, .. } => Door::Server(server.url()),
            Self::Sentinels(servers) => Door::Sentinels(servers.urls()),
            Self::Cluster(cluster) => Door::Cluster(cluster.urls()),
        }
    }

    /// Entries of the stream that are not taken in yet.
    pub(crate) fn streaming(&self) -> anyhow::Result<u64> {
        self.ask(Part::Stream, &["XLEN", STREAM])
    }

    /// Closes all connections of clients.
    pub(crate) fn cut_clients(&self) -> anyhow::Result<()> {
        for server in self.all() {
            for kind in ["pubsub", "normal"] {
                blocking(|| server.ask::<()>(&["CLIENT", "KILL", "TYPE", kind]))?;
            }
        }
        Ok(())
    }

    /// Has every master forget the functions, and so its replicas.
    pub(crate) fn flush_functions(&self) -> anyhow::Result<()> {
        for master in self.masters()? {
            let () = blocking(|| self.all()[master].ask(&["FUNCTION", "FLUSH"]))?;
        }
        Ok(())
    }

    pub(crate) fn destroy_group(&self) -> anyhow::Result<()> {
        self.ask(Part::Stream, &["XGROUP", "DESTROY", STREAM, GROUP])
    }

    /// Kills a master and starts it again when its replica is promoted.
    pub(crate) async fn kill_master(&mut self, of: Part) -> anyhow::Result<()> {
        let old = self.master(of)?;
        self.server(old).kill()?;
        self.wait_for_another(of, old).await?;
        blocking(|| self.server(old).restart().context("a killed master"))?;
        self.wait_until_whole().await
    }

    /// Pauses a master until its replica is promoted.
    pub(crate) async fn pause_master(&mut self, of: Part) -> anyhow::Result<()> {
        let old = self.master(of)?;
        self.server(old).pause()?;
        let another = self.wait_for_another(of, old).await;
        self.server(old).resume()?;
        another?;
        self.wait_until_whole().await
    }

    /// Has a replica promoted while its master is well.
    pub(crate) async fn promote(&self, of: Part) -> anyhow::Result<()> {
        let old = self.master(of)?;
        match self {
            Self::Single { .. } => bail!("there is no replica to promote"),
            Self::Sentinels(servers) => sentinels::promote(servers, old).await?,
            Self::Cluster(cluster) => cluster::promote(cluster, old)?,
        }
        self.wait_for_another(of, old).await?;
        self.wait_until_whole().await
    }

    /// Kills a replica, and starts it again later.
    pub(crate) async fn kill_replica(&mut self, of: Part, down: Duration) -> anyhow::Result<()> {
        let master = self.master(of)?;
        let replica = match self {
            Self::Single { .. } => bail!("there is no replica to kill"),
            Self::Sentinels(servers) => sentinels::replica_of(servers, master),
            Self::Cluster(cluster) => blocking(|| cluster.replica_of(master))?,
        };
        self.server(replica).kill()?;
        tokio::time::sleep(down).await;
        blocking(|| self.server(replica).restart().context("a killed replica"))?;
        self.wait_until_whole().await
    }

    /// Moves a slot to the `to`th of the other masters, some of its keys at a time.
    pub(crate) async fn move_slot(
        &self,
        of: Part,
        to: usize,
        steps: u32,
        pause: Duration,
    ) -> anyhow::Result<()> {
        let Self::Cluster(servers) = self else {
            bail!("there are no slots to move");
        };
        cluster::move_slot(servers, of, to, steps, pause).await?;
        self.wait_until_whole().await
    }

    /// The numbers of the masters. Another answer than after the last fault means that a replica was
    /// promoted which nobody asked to: its master seemed dead.
    pub(crate) fn masters(&self) -> anyhow::Result<Vec<usize>> {
        let masters = blocking(|| match self {
            Self::Single { .. } => Ok(vec![0]),
            Self::Sentinels(servers) => Ok(vec![servers.master()?]),
            Self::Cluster(cluster) => cluster.masters(),
        });
        masters.context("there is no master")
    }

    /// All servers of data.
    fn all(&self) -> &[RedisServer] {
        match self {
            Self::Single { server, .. } => std::slice::from_ref(server),
            Self::Sentinels(servers) => servers.servers(),
            Self::Cluster(cluster) => cluster.all(),
        }
    }

    fn server(&mut self, n: usize) -> &mut RedisServer {
        match self {
            Self::Single { server, .. } => server,
            Self::Sentinels(servers) => servers.server(n),
            Self::Cluster(cluster) => cluster.node(n),
        }
    }

    /// The number of the master that has this part of the keys.
    fn master(&self, of: Part) -> anyhow::Result<usize> {
        blocking(|| match self {
            Self::Single { .. } => Ok(0),
            Self::Sentinels(servers) => servers.master(),
            Self::Cluster(cluster) => cluster.owner(cluster::slot(cluster, of)?),
        })
        .context("there is no master")
    }

    /// Asks the master that has this part of the keys.
    fn ask<T: FromRedisValue>(&self, of: Part, words: &[&str]) -> anyhow::Result<T> {
        let server = &self.all()[self.master(of)?];
        Ok(blocking(|| server.ask(words))?)
    }

    /// Returns when another server than `old` is the master.
    async fn wait_for_another(&self, of: Part, old: usize) -> anyhow::Result<()> {
        until("another master is promoted", || match self {
            Self::Single { .. } => Ok(true),
            Self::Sentinels(servers) => Ok(servers.master()? != old),
            Self::Cluster(cluster) => Ok(cluster.owner(cluster::slot(cluster, of)?)? != old),
        })
        .await
    }

    /// Returns when every replica has what its master has.
    pub(crate) async fn wait_until_whole(&self) -> anyhow::Result<()> {
        until("every replica has its master's data", || match self {
            Self::Single { .. } => Ok(true),
            Self::Sentinels(servers) => servers.is_whole(),
            Self::Cluster(cluster) => cluster.is_whole(),
        })
        .await
    }
}

/// Asks again and again until it is so.
async fn until(what: &str, mut so: impl FnMut() -> io::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let last = blocking(&mut so);
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let not_in_time = format!("{what}, not in {PATIENCE:?}");
            last.context(not_in_time.clone())?;
            bail!(not_in_time);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Work that holds up its thread, such as asking a server, without holding up the other sites.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
