//! Judges a component before it is given to a tenant.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::component::{self, Outline};
use crate::config::PluginHostConfig;
use crate::error::LoadError;
use crate::folder::{self, Key};
use crate::loader::{Loader, Outcome, Source};
use crate::manifest::Manifest;
use crate::types::Digest;

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
    /// Why the host would refuse it, if it would.
    pub refusal: Option<LoadError>,
}

impl Loader {
    /// Judge a file anywhere, with the manifest beside it, as it would be judged in a tenant's folder.
    pub(crate) async fn check(self: &Arc<Self>, path: &Path) -> Result<CheckReport, LoadError> {
        let (loader, path) = (Arc::clone(self), path.to_owned());
        let read = spawn_blocking(move || read(&path, &loader.shared.config))
            .await
            .unwrap_or_else(|error| Err(LoadError::Unreadable(error.to_string())));
        let (bytes, manifest, outline) = read?;
        let mut report = CheckReport {
            digest: Digest::of(&bytes),
            bytes: bytes.len(),
            contract: outline.contract,
            outline,
            compile_time: None,
            refusal: None,
        };
        report.refusal = self.try_out(bytes, manifest, &mut report).await.err();
        Ok(report)
    }

    async fn try_out(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        manifest: Manifest,
        report: &mut CheckReport,
    ) -> Result<(), LoadError> {
        component::check_imports(&report.outline)?;
        let began = Instant::now();
        let source = Source {
            digest: report.digest,
            bytes,
            exports: report.outline.exports,
        };
        let code = self.compile(source).await?;
        report.compile_time = Some(began.elapsed());
        let key = Key {
            tenant: Arc::from("check"),
            name: Arc::from("check"),
        };
        match self.start(&key, code, manifest).await {
            Outcome::Refused(error) => Err(error),
            Outcome::Ready(_) | Outcome::Unchanged => Ok(()),
        }
    }
}

fn read(path: &Path, config: &PluginHostConfig) -> Result<(Vec<u8>, Manifest, Outline), LoadError> {
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
    let outline = component::outline(&bytes, limits, &config.most(), &manifest.grants)?;
    Ok((bytes, manifest, outline))
}
