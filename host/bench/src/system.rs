//! The processes under measurement: receiver, Redis and the host itself, each of our own starting.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::receiver::Stats;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// The built sample components.
pub(crate) fn component(name: &str) -> PathBuf {
    root()
        .join("plugins/target/wasm32-wasip2/release")
        .join(name)
}

/// A process that ends with us.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process of the benchmark")?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child
            .id()
            .context("a process of the benchmark ended early")
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

/// The receiver, as a process of its own.
pub(crate) struct Receiver {
    pub(crate) process: Process,
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Process::start(command.arg("receiver").stdout(Stdio::piped()))?;
        let out = process
            .child
            .stdout
            .take()
            .context("the receiver has no output")?;
        let port = BufReader::new(out)
            .lines()
            .next_line()
            .await?
            .context("the receiver ended early")?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            client,
        })
    }

    pub(crate) async fn stats(&self) -> anyhow::Result<Stats> {
        self.get("stats").await
    }

    pub(crate) async fn reset(&self) -> anyhow::Result<()> {
        self.get("reset").await.map(|_| ())
    }

    async fn get(&self, what: &str) -> anyhow::Result<Stats> {
        let bytes = self
            .client
            .get(format!("{}/{what}", self.url))
            .send()
            .await?
            .bytes()
            .await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Waits until so many requests arrived.
    pub(crate) async fn wait_for(&self, count: u64, patience: Duration) -> anyhow::Result<Stats> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let stats = self.stats().await?;
            if stats.count >= count {
                return Ok(stats);
            }
            if tokio::time::Instant::now() > until {
                bail!(
                    "{} of {count} deliveries arrived in {patience:?}",
                    stats.count
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The host: the real binary, optimised, on a configuration of its own.
pub(crate) struct Host {
    pub(crate) process: Process,
    pub(crate) url: String,
    /// Kept because dropping it removes the folder.
    pub(crate) folder: tempfile::TempDir,
}

impl Host {
    /// Starts a host with one tenant, `bench`, one endpoint, and maybe a transform plugin; on Redis
    /// if there is a URL, otherwise embedded.
    pub(crate) async fn start(
        receiver: &str,
        redis: Option<&str>,
        plugin: Option<&str>,
    ) -> anyhow::Result<Self> {
        Self::start_with(receiver, redis, plugin, 1).await
    }

    /// The same with several endpoints that all want every event.
    pub(crate) async fn start_with(
        receiver: &str,
        redis: Option<&str>,
        plugin: Option<&str>,
        endpoints: usize,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("wasmhook-bench-")
            .tempdir()?;
        let tenant = folder.path().join("tenants/bench");
        std::fs::create_dir_all(tenant.join("plugins"))?;
        std::fs::create_dir_all(folder.path().join("secrets/bench"))?;
        let secret = folder.path().join("secrets/bench/main");
        std::fs::write(&secret, crate::floor::SECRET)?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
        let registered: Vec<String> = (0..endpoints)
            .map(|n| {
                // A sample component asks for the endpoint `main`.
                let id = if n == 0 { "main".to_owned() } else { format!("main{n}") };
                format!(
                    "[[endpoints]]\nid = \"{id}\"\nurl = \"{receiver}/hook\"\nsecrets = [\"main\"]\nevents = [\"*\"]\n"
                )
            })
            .collect();
        std::fs::write(tenant.join("tenant.toml"), registered.concat())?;
        if let Some(plugin) = plugin {
            std::fs::copy(component(plugin), tenant.join("plugins/10-shape.wasm"))
                .with_context(|| format!("the component {plugin} is not built"))?;
            std::fs::write(
                tenant.join("plugins/10-shape.toml"),
                "[config]\nfields = \"card\"\n",
            )?;
        }
        let port = free_port()?;
        let store = redis.map_or_else(
            || "[store]\nkind = \"embedded\"\n".to_owned(),
            // Each host has its own name in the stream's group; its port is one.
            |url| {
                format!(
                    "[store]\nkind = \"redis\"\n[redis]\nurl = \"{url}\"\nconsumer = \"host-{port}\"\n"
                )
            },
        );
        std::fs::write(
            folder.path().join("wasmhook.toml"),
            format!(
                "{store}[catalog]\ntypes = [\"bench.event\"]\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
                 [delivery]\nallow_http = true\nallow_private_addresses = true\n[log]\nlevel = \"warn\"\n"
            ),
        )?;
        let mut command = Command::new(std::env::current_exe()?.with_file_name("wasmhook"));
        command
            .arg("serve")
            .arg("--config")
            .arg(folder.path().join("wasmhook.toml"));
        let process = Process::start(&mut command)?;
        let url = format!("http://127.0.0.1:{port}");
        let host = Self {
            process,
            url,
            folder,
        };
        host.ready().await?;
        Ok(host)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        for _ in 0..300 {
            if let Ok(response) = client.get(format!("{}/readyz", self.url)).send().await
                && response.status().is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the host did not become ready")
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
