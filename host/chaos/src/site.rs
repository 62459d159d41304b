//! A site: hosts on one store, their receiver, and what can go wrong between them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use wasmhook_store::embedded::EmbeddedStore;
use wasmhook_store::redis::RedisStore;

use crate::disk::Disk;
use crate::fault::Fault;
use crate::happening::{Happening, held_up};
use crate::host::{Host, HostPlan};
use crate::ledger::Ledger;
use crate::plan::Step;
use crate::producer::Progress;
use crate::proxy::Network;
use crate::receiver::{Health, Receiver};
use crate::servers::Servers;
use crate::workload::{ENDPOINTS, Store, TENANTS, TYPES};

/// The signing secret of every endpoint: the sample of the Standard Webhooks specification.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How long after a fault something must arrive.
const PATIENCE: Duration = Duration::from_secs(60);
/// The hosts' names.
const NAMES: [&str; 2] = ["one", "two"];

/// Everything of one store. Fields are dropped in this order: hosts before what they stand on.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) hosts: Vec<Host>,
    pub(crate) receiver: Receiver,
    pub(crate) servers: Option<Servers>,
    disk: Option<Disk>,
    folder: TempDir,
    ledger: Arc<Ledger>,
}

impl Site {
    /// Starts it, well.
    pub(crate) async fn start(store: Store, ledger: &Arc<Ledger>) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wasmhook-chaos-")?;
        let receiver = Receiver::start(ledger).await?;
        write_tenants(&folder, &receiver.url())?;
        let mut site = Self {
            store,
            hosts: Vec::new(),
            receiver,
            servers: Servers::start(store).await?,
            disk: None,
            folder,
            ledger: Arc::clone(ledger),
        };
        if store == Store::Embedded {
            let disk = Disk::make(&site.folder.path().join("data"))?;
            println!("the embedded store's disk is filled by {}", disk.means());
            site.disk = Some(disk);
        }
        for (n, name) in NAMES.into_iter().take(store.hosts()).enumerate() {
            let mut host = Host::new(&HostPlan {
                name,
                folder: site.folder.path(),
                redis: site.servers.as_ref().map(|servers| servers.settings(n)),
                types: &TYPES,
                kept: store.kept(ledger.len()),
            })?;
            if let Err(error) = host.start().await {
                site.keep();
                return Err(error);
            }
            site.hosts.push(host);
        }
        Ok(site)
    }

    /// The store, as a tool beside the hosts sees it.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn wasmhook_store::Store>> {
        Ok(match &self.servers {
            Some(servers) => Arc::new(RedisStore::connect(servers.config()).await?),
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
        happenings: &mut Vec<Happening>,
    ) -> anyhow::Result<()> {
        for (number, step) in steps.iter().enumerate() {
            let expected = step.calm + step.fault.duration();
            progress.step(number, steps.len(), expected);
            let (calm, masters) = (self.ledger.now(), self.masters()?);
            tokio::time::sleep(step.calm).await;
            if self.masters().ok().as_ref() != Some(&masters) {
                let unasked = Fault::ReplicaPromotedUnasked;
                let unasked = self.watch(&unasked, calm, happenings).await?;
                happenings.push(unasked);
            }
            let from = self.ledger.now();
            let happening = self.watch(&step.fault, from, happenings).await;
            let happening = happening.with_context(|| step.fault.name())?;
            eprintln!("{:>4} of {:<4} {happening}", number + 1, steps.len());
            happenings.push(happening);
        }
        progress.finish();
        Ok(())
    }

    /// Has a fault happen, or end, that began at `from`, and writes down what went on meanwhile.
    async fn watch(
        &mut self,
        fault: &Fault,
        from: Duration,
        before: &[Happening],
    ) -> anyhow::Result<Happening> {
        let (acknowledged, accepted) = (self.ledger.acknowledged(), self.ledger.accepted());
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
            held_up: held_up(before, from),
            to,
            acknowledged: self.ledger.acknowledged() - acknowledged,
            accepted: self.ledger.accepted() - accepted,
            recovery: self.recover(to).await?,
            duplicates: 0,
        };
        Ok(happening)
    }

    /// Waits until something arrives again; how long that took.
    async fn recover(&self, since: Duration) -> anyhow::Result<Duration> {
        let before = self.ledger.accepted();
        loop {
            let took = self.ledger.now().saturating_sub(since);
            if self.ledger.accepted() > before || self.ledger.is_all_acknowledged() {
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
                self.hosts[*host].start().await
            }
            Fault::HostPaused { host, pause } => {
                self.hosts[*host].pause()?;
                tokio::time::sleep(*pause).await;
                self.hosts[*host].go_on()
            }
            Fault::HostStopped { host } => {
                self.hosts[*host].stop().await?;
                self.hosts[*host].start().await
            }
            Fault::RedisKilled { down } => self.servers()?.kill(*down).await,
            Fault::RedisReadOnly { lasts } => self.servers()?.read_only(*lasts).await,
            Fault::RedisFull { lasts } => self.servers()?.fill_memory(*lasts).await,
            Fault::MasterKilled { of } => self.servers()?.kill_master(*of).await,
            Fault::MasterPaused { of } => self.servers()?.pause_master(*of).await,
            Fault::ReplicaPromoted { of } => self.servers()?.promote(*of).await,
            Fault::ReplicaPromotedUnasked => self.servers()?.wait_until_whole().await,
            Fault::ReplicaKilled { of, down } => self.servers()?.kill_replica(*of, *down).await,
            Fault::SlotMoved {
                of,
                to,
                steps,
                pause,
            } => self.servers()?.move_slot(*of, *to, *steps, *pause).await,
            Fault::ClientsCut => self.servers()?.cut_clients(),
            Fault::FunctionsFlushed => self.servers()?.flush_functions(),
            Fault::GroupDestroyed => self.servers()?.destroy_group(),
            Fault::NetworkDelayed { host, by, lasts } => {
                let slow = Network::Slow(*by);
                self.servers()?.network(*host, slow, *lasts).await
            }
            Fault::NetworkCut { host, lasts } => {
                self.servers()?.network(*host, Network::Cut, *lasts).await
            }
            Fault::NetworkSilent { host, lasts } => {
                let silent = Network::Silent;
                self.servers()?.network(*host, silent, *lasts).await
            }
            Fault::ReceiverDown { lasts } => self.receiver(Health::Down, *lasts).await,
            Fault::ReceiverFailing { lasts } => self.receiver(Health::Failing, *lasts).await,
            Fault::DiskFull { lasts } => {
                let host = self.hosts[0].pid();
                let disk = self.disk.as_ref().context("there is no disk to fill")?;
                disk.fill(host)?;
                tokio::time::sleep(*lasts).await;
                disk.clear(host)
            }
        }
    }

    fn masters(&self) -> anyhow::Result<Vec<usize>> {
        self.servers
            .as_ref()
            .map_or(Ok(Vec::new()), Servers::masters)
    }

    fn servers(&mut self) -> anyhow::Result<&mut Servers> {
        self.servers.as_mut().context("there is no Redis")
    }

    async fn receiver(&self, health: Health, lasts: Duration) -> anyhow::Result<()> {
        self.receiver.set(health);
        tokio::time::sleep(lasts).await;
        self.receiver.set(Health::Well);
        Ok(())
    }

    /// Entries of the stream that are not taken in yet; none without a stream.
    pub(crate) fn streaming(&self) -> anyhow::Result<u64> {
        self.servers.as_ref().map_or(Ok(0), Servers::streaming)
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
