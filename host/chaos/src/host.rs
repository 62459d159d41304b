//! A host: the real binary on a configuration of its own.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use wasmhook_testing::free_port;

/// One deadline over an exchange with the receiver.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
/// For plugins, of which there are none.
const PLUGIN_BUDGET: Duration = Duration::from_secs(1);
/// For recording.
pub(crate) const RECORDING_ROOM: Duration = Duration::from_secs(4);
/// How long a lease lasts by these settings.
pub(crate) const LEASE: Duration = Duration::from_secs(8);
/// Deliveries in flight on one host.
pub(crate) const CONCURRENCY: usize = 64;
/// How long a host may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a host keeps things and what it uses.
pub(crate) struct HostPlan<'a> {
    pub(crate) name: &'static str,
    pub(crate) folder: &'a Path,
    /// The settings of Redis; the embedded store if there are none.
    pub(crate) redis: Option<String>,
    pub(crate) types: &'a [&'a str],
    /// So many finished deliveries of each tenant are kept.
    pub(crate) kept: usize,
}

/// A host that may be killed and started again. Killed when dropped.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    client: reqwest::Client,
}

impl Host {
    /// Writes the configuration; starts nothing yet.
    pub(crate) fn new(plan: &HostPlan<'_>) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = plan.folder.join(format!("{}.toml", plan.name));
        let store = match &plan.redis {
            Some(settings) => format!(
                "[store]\nkind = \"redis\"\n[redis]\nconsumer = \"{}\"\n{settings}",
                plan.name
            ),
            None => "[store]\nkind = \"embedded\"\npath = \"data\"\n".to_owned(),
        };
        let types: Vec<_> = plan
            .types
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let text = format!(
            "{store}[catalog]\ntypes = [{types}]\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n\
             [delivery]\nallow_http = true\nallow_private_addresses = true\ntimeout = \"{timeout}s\"\n\
             [plugins]\nbudget = \"{budget}s\"\ncache = \"cache-{name}\"\nversions = \"versions-{name}\"\n\
             [worker]\nconcurrency = {CONCURRENCY}\nrecording_room = \"{room}s\"\n\
             [retry]\nschedule = [{schedule}]\n\
             [retention]\nage = \"7days\"\ncount = {kept}\n\
             [log]\nlevel = \"info\"\n",
            types = types.join(", "),
            timeout = TIMEOUT.as_secs(),
            budget = PLUGIN_BUDGET.as_secs(),
            name = plan.name,
            kept = plan.kept,
            room = RECORDING_ROOM.as_secs(),
            // Longer than anything that happens to a receiver here.
            schedule = ["\"500ms\"", "\"1s\""]
                .into_iter()
                .chain(std::iter::repeat_n("\"2s\"", 30))
                .collect::<Vec<_>>()
                .join(", "),
        );
        std::fs::write(&config, text)?;
        Ok(Self {
            name: plan.name,
            url: format!("http://127.0.0.1:{port}"),
            config,
            log: plan.folder.join(format!("{}.log", plan.name)),
            child: None,
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(2))
                .build()?,
        })
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let binary = std::env::current_exe()?.with_file_name("wasmhook");
        // The signal that a limit on files sends is ignored, as what it replaces, a full disk, sends
        // none.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\""])
            .arg(&binary)
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        self.child = Some(child);
        let ready = async {
            while !self.answers("/readyz").await {
                if let Some(status) = self.ended()? {
                    bail!("host {} ended at once with {status}", self.name);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(ready) => ready,
            Err(_) => bail!("host {} is not ready", self.name),
        }
        .with_context(|| format!("its log is {}", self.log.display()))
    }

    async fn answers(&self, path: &str) -> bool {
        let asked = self.client.get(format!("{}{path}", self.url)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// The process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it did so by itself, which it must not.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Stops the process where it stands.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        if let Some(mut child) = self.child.take() {
            let status = tokio::time::timeout(PATIENCE, child.wait()).await;
            let status = status.with_context(|| format!("host {} does not end", self.name))??;
            if !status.success() {
                bail!(
                    "host {} was asked to end and did so with {status}",
                    self.name
                );
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .with_context(|| format!("host {} does not run", self.name))?;
        rustix::process::kill_process(pid, signal)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_what_the_settings_make_it() {
        assert_eq!(TIMEOUT + PLUGIN_BUDGET + RECORDING_ROOM, LEASE);
    }
}
