//! A site: hosts on one store, their receiver, and what can go wrong between them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use wasmhook_store::embedded::EmbeddedStore;
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_testing::{Durability, RedisServer};

use crate::disk::Disk;
use crate::fault::Fault;
use crate::happening::Happening;
use crate::host::{Host, HostPlan};
use crate::ledger::Ledger;
use crate::plan::Step;
use crate::producer::Progress;
use crate::proxy::{Network, Proxy};
use crate::receiver::{Health, Receiver};
use crate::workload::{ENDPOINTS, Store, TENANTS, TYPES};

/// The stream that producers push to, and its consumer group.
pub(crate) const STREAM: &str = "wasmhook:events";
const GROUP: &str = "wasmhook";
/// The signing secret of every endpoint: the sample of the Standard Webhooks specification.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How long after a fault something must arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything of one store. Fields are dropped in this order: hosts before what they stand on.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) hosts: Vec<Host>,
    pub(crate) receiver: Receiver,
    proxies: Vec<Proxy>,
    redis: Option<RedisServer>,
    disk: Option<Disk>,
    folder: TempDir,
    ledger: Arc<Ledger>,
}

impl Site {
    /// Starts it, well.
    pub(crate) async fn start(store: Store, ledger: &Arc<Ledger>) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wasmhook-chaos-")?;
        let receiver = Receiver::start(store, ledger).await?;
        write_tenants(&folder, &receiver.url())?;
        let mut site = Self {
            store,
            hosts: Vec::new(),
            receiver,
            proxies: Vec::new(),
            redis: None,
            disk: None,
            folder,
            ledger: Arc::clone(ledger),
        };
        match store {
            Store::Redis => {
                let server = RedisServer::start_with(Durability::Always, &[])?;
                for name in ["one", "two"] {
                    let proxy = Proxy::start(server.port()).await?;
                    site.add_host(name, Some(proxy.port()))?;
                    site.proxies.push(proxy);
                }
                site.redis = Some(server);
            }
            Store::Embedded => {
                let disk = Disk::make(&site.folder.path().join("data"))?;
                println!("the embedded store's disk is filled by {}", disk.means());
                site.disk = Some(disk);
                site.add_host("only", None)?;
            }
        }
        for host in &mut site.hosts {
            host.start().await?;
        }
        Ok(site)
    }

    fn add_host(&mut self, name: &'static str, redis: Option<u16>) -> anyhow::Result<()> {
        self.hosts.push(Host::new(&HostPlan {
            name,
            folder: self.folder.path(),
            redis,
            types: &TYPES,
        })?);
        Ok(())
    }

    /// The port of Redis, past all proxies.
    pub(crate) fn redis_port(&self) -> Option<u16> {
        self.redis.as_ref().map(RedisServer::port)
    }

    /// The store, as a tool beside the hosts sees it.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn wasmhook_store::Store>> {
        Ok(match &self.redis {
            Some(server) => Arc::new(RedisStore::connect(RedisConfig::new(server.url())).await?),
            None => Arc::new(EmbeddedStore::open_for_tools(
                self.folder.path().join("data"),
            )?),
        })
    }

    /// Has one fault after another happen, each after some calm.
    pub(crate) async fn endure(
        &mut self,
        steps: &[Step],
        progress: &Progress,
    ) -> anyhow::Result<Vec<Happening>> {
        let mut happenings = Vec::with_capacity(steps.len());
        for (number, step) in steps.iter().enumerate() {
            let expected = step.calm + step.fault.duration();
            progress.step(self.store, number, steps.len(), expected);
            tokio::time::sleep(step.calm).await;
            let happening = self.happen(&step.fault).await.map_err(|error| {
                let (name, logs) = (step.fault.name(), self.keep());
                error.context(format!(
                    "{name}, on the {} site, whose logs are kept in {logs}",
                    self.store
                ))
            })?;
            eprintln!(
                "{:>4} of {:<4} {:<9} {:<29} {:>5.1} s, back after {:.1} s",
                number + 1,
                steps.len(),
                self.store,
                step.fault.name(),
                happening.lasted().as_secs_f64(),
                happening.recovery.as_secs_f64(),
            );
            happenings.push(happening);
        }
        progress.finish(self.store);
        Ok(happenings)
    }

    async fn happen(&mut self, fault: &Fault) -> anyhow::Result<Happening> {
        let (acknowledged, accepted) = (
            self.ledger.acknowledged(self.store),
            self.ledger.accepted(self.store),
        );
        let from = self.ledger.now();
        self.suffer(fault).await?;
        let to = self.ledger.now();
        for host in &mut self.hosts {
            if let Some(status) = host.ended()? {
                bail!("host {} ended by itself with {status}", host.name);
            }
        }
        let happening = Happening {
            store: self.store,
            fault: fault.clone(),
            from,
            to,
            acknowledged: self.ledger.acknowledged(self.store) - acknowledged,
            accepted: self.ledger.accepted(self.store) - accepted,
            recovery: self.recover(to).await?,
            duplicates: 0,
        };
        Ok(happening)
    }

    /// Waits until something arrives again; how long that took.
    async fn recover(&self, since: Duration) -> anyhow::Result<Duration> {
        let before = self.ledger.accepted(self.store);
        loop {
            let took = self.ledger.now().saturating_sub(since);
            if self.ledger.accepted(self.store) > before || self.ledger.is_all_acknowledged() {
                return Ok(took);
            }
            if took > PATIENCE {
                bail!("nothing arrived for {PATIENCE:?} after it was over");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn suffer(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::HostKilled { host, down } => {
                self.hosts[*host].kill().await?;
                tokio::time::sleep(*down).await;
                self.hosts[*host].start().await?;
            }
            Fault::HostPaused { host, pause } => {
                self.hosts[*host].pause()?;
                tokio::time::sleep(*pause).await;
                self.hosts[*host].go_on()?;
            }
            Fault::HostStopped { host } => {
                self.hosts[*host].stop().await?;
                self.hosts[*host].start().await?;
            }
            Fault::RedisKilled { down } => self.kill_redis(*down).await?,
            Fault::RedisReadOnly { lasts } => {
                // A master that is not there: nothing listens on port 1.
                self.tell(&["REPLICAOF", "127.0.0.1", "1"]).await?;
                self.ensure_refuses_writes().await?;
                tokio::time::sleep(*lasts).await;
                self.tell(&["REPLICAOF", "NO", "ONE"]).await?;
            }
            Fault::RedisFull { lasts } => {
                let limit = self.used_memory().await? * 9 / 10;
                self.tell(&["CONFIG", "SET", "maxmemory", &limit.to_string()])
                    .await?;
                self.ensure_refuses_writes().await?;
                tokio::time::sleep(*lasts).await;
                self.tell(&["CONFIG", "SET", "maxmemory", "0"]).await?;
            }
            Fault::ClientsCut => {
                self.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
                self.tell(&["CLIENT", "KILL", "TYPE", "normal"]).await?;
            }
            Fault::FunctionsFlushed => self.tell(&["FUNCTION", "FLUSH"]).await?,
            Fault::GroupDestroyed => self.tell(&["XGROUP", "DESTROY", STREAM, GROUP]).await?,
            Fault::NetworkDelayed { host, by, lasts } => {
                self.network(*host, Network::Slow(*by), *lasts).await;
            }
            Fault::NetworkCut { host, lasts } => self.network(*host, Network::Cut, *lasts).await,
            Fault::NetworkSilent { host, lasts } => {
                self.network(*host, Network::Silent, *lasts).await;
            }
            Fault::ReceiverDown { lasts } => self.receiver(Health::Down, *lasts).await,
            Fault::ReceiverFailing { lasts } => self.receiver(Health::Failing, *lasts).await,
            Fault::DiskFull { lasts } => {
                let host = self.hosts[0].pid();
                let disk = self.disk.as_ref().context("there is no disk to fill")?;
                disk.fill(host)?;
                tokio::time::sleep(*lasts).await;
                disk.clear(host)?;
            }
        }
        Ok(())
    }

    async fn kill_redis(&mut self, down: Duration) -> anyhow::Result<()> {
        let server = self.redis.as_mut().context("there is no Redis to kill")?;
        server.kill()?;
        tokio::time::sleep(down).await;
        tokio::task::block_in_place(|| server.restart())?;
        Ok(())
    }

    async fn network(&self, host: usize, network: Network, lasts: Duration) {
        self.proxies[host].set(network);
        tokio::time::sleep(lasts).await;
        self.proxies[host].set(Network::Fine);
    }

    async fn receiver(&self, health: Health, lasts: Duration) {
        self.receiver.set(health);
        tokio::time::sleep(lasts).await;
        self.receiver.set(Health::Well);
    }

    async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        let server = self.redis.as_ref().context("there is no Redis")?;
        let client = redis::Client::open(server.url())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    async fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut connection = self.redis().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let told = command.exec_async(&mut connection).await;
        told.with_context(|| format!("Redis does not do {}", words.join(" ")))
    }

    /// A fault that does not bite proves nothing.
    async fn ensure_refuses_writes(&self) -> anyhow::Result<()> {
        let written = self.tell(&["SET", "wasmhook-chaos", "1"]).await;
        ensure!(written.is_err(), "Redis still writes");
        Ok(())
    }

    async fn used_memory(&self) -> anyhow::Result<u64> {
        let mut connection = self.redis().await?;
        let info: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut connection)
            .await?;
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
            .context("Redis does not say how much memory it uses")
    }

    /// Entries of the stream that are not taken in yet; none without a stream.
    pub(crate) async fn streaming(&self) -> anyhow::Result<u64> {
        if self.redis.is_none() {
            return Ok(0);
        }
        let mut connection = self.redis().await?;
        Ok(redis::cmd("XLEN")
            .arg(STREAM)
            .query_async(&mut connection)
            .await?)
    }

    /// Keeps the folder with configuration and logs; says where.
    pub(crate) fn keep(&mut self) -> String {
        self.folder.disable_cleanup(true);
        self.folder.path().display().to_string()
    }
}

fn write_tenants(folder: &TempDir, url: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    for tenant in TENANTS {
        let endpoints = ENDPOINTS.map(|(id, events)| {
            format!(
                "[[endpoints]]\nid = \"{id}\"\nurl = \"{url}\"\nsecrets = [\"main\"]\nevents = [\"{events}\"]\n\
                 ordering = {{ by = \"key\" }}\n"
            )
        });
        let own = folder.path().join("tenants").join(tenant);
        std::fs::create_dir_all(&own)?;
        std::fs::write(own.join("tenant.toml"), endpoints.concat())?;
        let secrets = folder.path().join("secrets").join(tenant);
        std::fs::create_dir_all(&secrets)?;
        std::fs::write(secrets.join("main"), SECRET)?;
        std::fs::set_permissions(secrets.join("main"), std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}
