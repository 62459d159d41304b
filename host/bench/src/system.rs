//! The processes under measurement: receiver, Redis and the host itself, each of our own starting.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

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

    /// Asks it to end and waits until it did.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        let pid = rustix::process::Pid::from_raw(pid).context("no process has the id 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait().await?;
        Ok(())
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
    /// One that answers at once.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_slow(Duration::ZERO).await
    }

    /// One that takes its time to answer.
    pub(crate) async fn start_slow(delay: Duration) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("receiver")
            .arg(delay.as_millis().to_string())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
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

    /// What arrived, without how late it was.
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

    /// Waits until so many requests arrived. Says how late each was, too.
    pub(crate) async fn wait_for(&self, count: u64, patience: Duration) -> anyhow::Result<Stats> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let stats = self.stats().await?;
            if stats.count >= count {
                return self.get("lateness").await;
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

/// A tenant of a host under measurement.
pub(crate) struct Tenant<'a> {
    pub(crate) name: String,
    /// Where its endpoints receive.
    pub(crate) receiver: &'a str,
    /// How many endpoints want every event. The first is `main`.
    pub(crate) endpoints: usize,
    /// The sample component that shapes its payloads, and its manifest.
    pub(crate) plugin: Option<(&'a str, &'a str)>,
    /// What tells its component from those of others with the same code.
    pub(crate) mark: Option<u64>,
}

impl<'a> Tenant<'a> {
    /// The tenant `bench` with one endpoint.
    pub(crate) fn bench(receiver: &'a str) -> Self {
        Self::new("bench", receiver)
    }

    pub(crate) fn new(name: impl Into<String>, receiver: &'a str) -> Self {
        Self {
            name: name.into(),
            receiver,
            endpoints: 1,
            plugin: None,
            mark: None,
        }
    }

    /// With the sample transform that redacts a field.
    pub(crate) fn redacting(mut self) -> Self {
        self.plugin = Some(("redact.wasm", "[config]\nfields = \"card\"\n"));
        self
    }

    fn write(&self, root: &Path) -> anyhow::Result<()> {
        let tenant = root.join("tenants").join(&self.name);
        std::fs::create_dir_all(tenant.join("plugins"))?;
        let secrets = root.join("secrets").join(&self.name);
        std::fs::create_dir_all(&secrets)?;
        let secret = secrets.join("main");
        std::fs::write(&secret, crate::floor::SECRET)?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
        let registered: Vec<String> = (0..self.endpoints)
            .map(|n| {
                let id = endpoint(n);
                format!(
                    "[[endpoints]]\nid = \"{id}\"\nurl = \"{}/hook\"\nsecrets = [\"main\"]\nevents = [\"*\"]\n",
                    self.receiver
                )
            })
            .collect();
        std::fs::write(tenant.join("tenant.toml"), registered.concat())?;
        if let Some((file, manifest)) = self.plugin {
            let mut bytes = std::fs::read(component(file))
                .with_context(|| format!("the component {file} is not built"))?;
            if let Some(mark) = self.mark {
                add_mark(&mut bytes, mark);
            }
            std::fs::write(tenant.join("plugins/10-shape.wasm"), bytes)?;
            std::fs::write(tenant.join("plugins/10-shape.toml"), manifest)?;
        }
        Ok(())
    }
}

/// Append a custom section, so that the component has bytes of its own.
pub(crate) fn add_mark(component: &mut Vec<u8>, mark: u64) {
    const NAME: &[u8] = b"mark";
    let data = mark.to_le_bytes();
    // The section's number, its length, and the length of its name: each in one byte of LEB128.
    component.extend([0, 1 + 4 + 8, 4]);
    component.extend(NAME);
    component.extend(data);
}

/// The ids of endpoints: sample components ask for the first two.
fn endpoint(number: usize) -> String {
    match number {
        0 => "main".to_owned(),
        1 => "main-archive".to_owned(),
        number => format!("main{number}"),
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
    /// Starts a host with these tenants; on Redis if there is a URL, otherwise embedded.
    pub(crate) async fn start(redis: Option<&str>, tenants: &[Tenant<'_>]) -> anyhow::Result<Self> {
        Self::start_with(redis, tenants, "").await
    }

    /// The same with further tables of configuration.
    pub(crate) async fn start_with(
        redis: Option<&str>,
        tenants: &[Tenant<'_>],
        settings: &str,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("wasmhook-bench-")
            .tempdir()?;
        for tenant in tenants {
            tenant.write(folder.path())?;
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
                 [delivery]\nallow_http = true\nallow_private_addresses = true\n[log]\nlevel = \"warn\"\n{settings}"
            ),
        )?;
        let host = Self {
            process: Self::serve(folder.path())?,
            url: format!("http://127.0.0.1:{port}"),
            folder,
        };
        host.ready().await?;
        Ok(host)
    }

    /// Ends it, and starts another one in its place. Says how long that one took until it was ready.
    pub(crate) async fn restart(mut self) -> anyhow::Result<(Self, Duration)> {
        self.process.stop().await?;
        let began = Instant::now();
        self.process = Self::serve(self.folder.path())?;
        self.ready().await?;
        Ok((self, began.elapsed()))
    }

    fn serve(folder: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("wasmhook"));
        command
            .arg("serve")
            .arg("--config")
            .arg(folder.join("wasmhook.toml"));
        Process::start(&mut command)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        // Twice as long as a host waits for plugins that need compiling.
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Ok(response) = client.get(format!("{}/readyz", self.url)).send().await
                && response.status().is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the host did not become ready")
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
