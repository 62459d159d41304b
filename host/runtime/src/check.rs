//! Judges a component before it is given to a tenant, and opens one that no tenant has.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::component::{self, Outline};
use crate::config::{PluginHostConfig, Reuse};
use crate::error::LoadError;
use crate::folder::{self, Key};
use crate::loader::{Found, Loader, Source};
use crate::manifest::Manifest;
use crate::plugin::Plugin;
use crate::types::Digest;

/// Fresh instances that are started to tell what one costs; the middle one is told.
const STARTS: usize = 9;

/// What is to be said about a component before it is given to a tenant.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its size.
    pub bytes: usize,
    /// The version of the contract that the component was built for.
    pub contract: &'static str,
    /// What it exports and imports.
    pub outline: Outline,
    /// How long compiling took, if it came to that.
    pub compile_time: Option<Duration>,
    /// What a fresh instance costs, if one starts.
    pub start: Option<StartCost>,
    /// Why the host would refuse it, if it would.
    pub refusal: Option<LoadError>,
}

/// What it takes to start a fresh instance and ask it nothing: the middle of a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartCost {
    /// Time on the wall.
    pub time: Duration,
    /// Processor time.
    pub cpu: Duration,
    /// Bytes of linear memory that the instance then has.
    pub memory: usize,
}

/// A file, read and judged as far as that needs no compiler.
struct Judged {
    bytes: Bytes,
    digest: Digest,
    manifest: Manifest,
    outline: Outline,
}

impl Loader {
    /// Judge a file anywhere, with the manifest beside it, as it would be judged in a tenant's folder.
    pub(crate) async fn check(self: &Arc<Self>, path: &Path) -> Result<CheckReport, LoadError> {
        let judged = self.judge_file(path).await?;
        let mut report = CheckReport {
            digest: judged.digest,
            bytes: judged.bytes.len(),
            contract: judged.outline.contract,
            outline: judged.outline.clone(),
            compile_time: None,
            start: None,
            refusal: None,
        };
        report.refusal = self.try_out(judged, &mut report).await.err();
        Ok(report)
    }

    /// Make a file anywhere ready to be called, with the manifest beside it. `reuse` goes before what
    /// the manifest says.
    pub(crate) async fn open(
        self: &Arc<Self>,
        path: &Path,
        tenant: &str,
        reuse: Option<Reuse>,
    ) -> Result<Arc<Plugin>, LoadError> {
        let judged = self.judge_file(path).await?;
        let mut manifest = judged.manifest;
        manifest.reuse = reuse.or(manifest.reuse);
        let loader = Arc::clone(self);
        let found =
            spawn_blocking(move || loader.find(judged.digest, judged.bytes, &judged.outline, None))
                .await
                .unwrap_or_else(|error| Err(LoadError::Unreadable(error.to_string())))?;
        let code = match found {
            Found::Code(code) => code,
            Found::Source(source) => self.compile(source).await?,
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let key = Key {
            tenant: Arc::from(tenant),
            name: Arc::from(name.as_ref()),
        };
        self.start(&key, code, manifest).await
    }

    async fn try_out(
        self: &Arc<Self>,
        judged: Judged,
        report: &mut CheckReport,
    ) -> Result<(), LoadError> {
        component::check_imports(&judged.outline)?;
        let began = Instant::now();
        let source = Source {
            digest: judged.digest,
            bytes: judged.bytes,
            exports: judged.outline.exports,
            plugin: None,
        };
        let code = self.compile(source).await?;
        report.compile_time = Some(began.elapsed());
        let key = Key {
            tenant: Arc::from("check"),
            name: Arc::from("check"),
        };
        let manifest = Manifest {
            reuse: Some(Reuse::Fresh),
            ..judged.manifest
        };
        let plugin = self.start(&key, code, manifest).await?;
        report.start = Some(start_cost(&plugin).await?);
        Ok(())
    }

    async fn judge_file(self: &Arc<Self>, path: &Path) -> Result<Judged, LoadError> {
        let (loader, path) = (Arc::clone(self), path.to_owned());
        spawn_blocking(move || read(&path, &loader.shared.config))
            .await
            .unwrap_or_else(|error| Err(LoadError::Unreadable(error.to_string())))
    }
}

async fn start_cost(plugin: &Plugin) -> Result<StartCost, LoadError> {
    let mut costs = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        let cost = plugin.try_start().await.map_err(LoadError::Start)?;
        costs.push(StartCost {
            time: began.elapsed(),
            cpu: cost.cpu,
            memory: cost.memory,
        });
    }
    costs.sort_by_key(|cost| cost.time);
    Ok(costs[STARTS / 2])
}

fn read(path: &Path, config: &PluginHostConfig) -> Result<Judged, LoadError> {
    let limits = &config.loading;
    let open = |path: &Path, limit| {
        let file = File::open(path).map_err(|error| LoadError::Unreadable(error.to_string()))?;
        folder::read_bounded(&file, limit)
    };
    let bytes = open(path, limits.component_bytes)?;
    let beside = path.with_extension("toml");
    let manifest = if beside.is_file() {
        let name = beside.file_name().unwrap_or_default().to_string_lossy();
        let manifest = Manifest::parse(&name, &open(&beside, limits.manifest_bytes)?)?;
        manifest.grants.check(&config.allowed, &name)?;
        manifest
    } else {
        Manifest::default()
    };
    let outline = Outline::read(&bytes, limits, &config.most(), &manifest.grants)?;
    Ok(Judged {
        digest: Digest::of(&bytes),
        bytes: Bytes::from(bytes),
        manifest,
        outline,
    })
}
