//! From a plugin's files to a version that can be called.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, Semaphore};
use tokio::task::spawn_blocking;
use wasmtime::component::Component;

use crate::bindings::{resolve, transform};
use crate::cache::Cache;
use crate::component::{self, Outline};
use crate::engine::Shared;
use crate::error::{Fault, LoadError, RuntimeError};
use crate::folder::{self, Key};
use crate::instance::{Linked, RESOLVE, TRANSFORM};
use crate::manifest::Manifest;
use crate::plugin::{Code, Plugin};
use crate::types::{Digest, Exports};

/// Files read and judged at once: they are held in memory meanwhile.
const READS: usize = 4;

/// What a plugin's files hold, by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    component: Digest,
    manifest: Option<Digest>,
}

/// What became of a plugin's files.
pub(crate) struct Loaded {
    /// What was read, if it could be read.
    pub(crate) version: Option<Version>,
    /// The manifest, if it is valid.
    pub(crate) manifest: Option<Manifest>,
    /// The exports, if they were found out.
    pub(crate) exports: Option<Exports>,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// The files hold what was judged before.
    Unchanged,
    Ready(Arc<Plugin>),
    Refused(LoadError),
}

/// The same, half-way.
struct Prepared {
    version: Option<Version>,
    manifest: Option<Manifest>,
    exports: Option<Exports>,
    code: Step,
}

enum Step {
    Unchanged,
    Ready(Arc<Code>),
    NeedsCompiling,
    Refused(LoadError),
}

/// Reads, judges, compiles and starts plugins, away from the threads that deliver.
pub(crate) struct Loader {
    pub(crate) shared: Arc<Shared>,
    cache: Option<Cache>,
    codes: Mutex<HashMap<Digest, Weak<Code>>>,
    reads: Semaphore,
    compiles: Semaphore,
}

impl Loader {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, RuntimeError> {
        let config = &shared.config;
        let cache = match &config.cache_dir {
            Some(folder) => Some(Cache::open(folder, config.cache_bytes, &shared.engine)?),
            None => None,
        };
        Ok(Self {
            cache,
            codes: Mutex::default(),
            reads: Semaphore::new(READS),
            compiles: Semaphore::new(config.compile_jobs.max(1)),
            shared,
        })
    }

    /// Load a plugin, unless its files still hold `known`. Calls `compiling` before it waits for a
    /// compiler, which can take long.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &Key,
        known: Option<Version>,
        compiling: impl FnOnce(&Manifest, Option<Exports>),
    ) -> Loaded {
        let mut prepared = self.prepare(key, known, false).await;
        if matches!(prepared.code, Step::NeedsCompiling) {
            if let Some(manifest) = &prepared.manifest {
                compiling(manifest, prepared.exports);
            }
            // The bytes are not held while waiting: they are read, and digested, again.
            let permit: Result<_, AcquireError> = self.compiles.acquire().await;
            prepared = self.prepare(key, known, true).await;
            drop(permit);
        }
        let Prepared {
            version,
            manifest,
            exports,
            code,
        } = prepared;
        let outcome = match code {
            Step::Unchanged => Outcome::Unchanged,
            Step::Refused(error) => Outcome::Refused(error),
            Step::NeedsCompiling => Outcome::Refused(LoadError::Compile("it was not".to_owned())),
            Step::Ready(code) => {
                self.start(key, code, manifest.clone().unwrap_or_default())
                    .await
            }
        };
        Loaded {
            version,
            manifest,
            exports,
            outcome,
        }
    }

    /// Prove that the component starts; the instance made for it serves the first call.
    async fn start(&self, key: &Key, code: Arc<Code>, manifest: Manifest) -> Outcome {
        let (tenant, name) = (Arc::clone(&key.tenant), Arc::clone(&key.name));
        let plugin = Plugin::new(Arc::clone(&self.shared), tenant, name, code, manifest);
        match plugin.try_start().await {
            Ok(()) => Outcome::Ready(Arc::new(plugin)),
            Err(Fault::Signature { interface }) => {
                Outcome::Refused(LoadError::Signature { interface })
            }
            Err(fault) => Outcome::Refused(LoadError::Start(fault)),
        }
    }

    async fn prepare(
        self: &Arc<Self>,
        key: &Key,
        known: Option<Version>,
        compile: bool,
    ) -> Prepared {
        // Whoever compiles holds a permit of its own kind, so that reading does not wait for it.
        let _permit = if compile {
            None
        } else {
            self.reads.acquire().await.ok()
        };
        let (loader, key) = (Arc::clone(self), key.clone());
        spawn_blocking(move || loader.prepare_blocking(&key, known, compile))
            .await
            .unwrap_or_else(|error| {
                Prepared::refused(LoadError::Compile(format!("the compiler failed ({error})")))
            })
    }

    fn prepare_blocking(&self, key: &Key, known: Option<Version>, compile: bool) -> Prepared {
        let config = &self.shared.config;
        let limits = &config.limits;
        let content = match folder::read(
            &config.tenants_dir,
            key,
            limits.component_bytes,
            limits.manifest_bytes,
        ) {
            Ok(content) => content,
            Err(error) => return Prepared::refused(error),
        };
        let version = Version {
            component: Digest::of(&content.component),
            manifest: content.manifest.as_deref().map(Digest::of),
        };
        let mut prepared = Prepared {
            version: Some(version),
            manifest: None,
            exports: None,
            code: Step::Unchanged,
        };
        if known == Some(version) {
            return prepared;
        }
        let file = format!("{}.toml", key.name);
        let manifest = content.manifest.as_deref().map_or_else(
            || Ok(Manifest::default()),
            |manifest| Manifest::parse(&file, manifest),
        );
        let outline = component::outline(&content.component, limits);
        prepared.exports = outline.as_ref().ok().map(|outline| outline.exports);
        let code = manifest.and_then(|manifest| {
            prepared.manifest = Some(manifest);
            let outline = outline?;
            component::check_imports(&outline)?;
            self.code(version.component, &content.component, &outline, compile)
        });
        prepared.code = match code {
            Ok(Some(code)) => Step::Ready(code),
            Ok(None) => Step::NeedsCompiling,
            Err(error) => Step::Refused(error),
        };
        prepared
    }

    /// Compiled and linked code: from another tenant, from the cache, or from the compiler.
    fn code(
        &self,
        digest: Digest,
        bytes: &[u8],
        outline: &Outline,
        compile: bool,
    ) -> Result<Option<Arc<Code>>, LoadError> {
        if let Some(code) = self.codes().get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(code));
        }
        let cached = self
            .cache
            .as_ref()
            .and_then(|c| c.load(&self.shared.engine, digest));
        let component = match cached {
            Some(component) => component,
            None if !compile => return Ok(None),
            None => {
                let component = compile_component(&self.shared, bytes)?;
                if let Some(cache) = &self.cache {
                    cache.store(digest, &component);
                }
                component
            }
        };
        let linked = link(&self.shared, &component, outline.exports)?;
        let code = Arc::new(Code {
            digest,
            exports: outline.exports,
            linked,
        });
        let mut codes = self.codes();
        codes.retain(|_, code| code.strong_count() > 0);
        codes.insert(digest, Arc::downgrade(&code));
        Ok(Some(code))
    }

    fn codes(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<Code>>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judge a file anywhere, with the manifest beside it, as it would be judged in a tenant's folder.
    pub(crate) async fn check(self: &Arc<Self>, path: &Path) -> Result<CheckReport, LoadError> {
        let (loader, path) = (Arc::clone(self), path.to_owned());
        let checked = spawn_blocking(move || loader.check_blocking(&path))
            .await
            .unwrap_or_else(|error| {
                Err(LoadError::Compile(format!("the compiler failed ({error})")))
            });
        let (mut report, code, manifest) = checked?;
        if let Some(code) = code {
            let key = Key {
                tenant: Arc::from("check"),
                name: Arc::from("check"),
            };
            if let Outcome::Refused(error) = self.start(&key, code, manifest).await {
                report.refusal = Some(error);
            }
        }
        Ok(report)
    }

    fn check_blocking(
        &self,
        path: &Path,
    ) -> Result<(CheckReport, Option<Arc<Code>>, Manifest), LoadError> {
        let limits = &self.shared.config.limits;
        let unreadable = |error: std::io::Error| LoadError::Unreadable(error.to_string());
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let bytes = folder::read_bounded(&file, limits.component_bytes)?;
        let beside = path.with_extension("toml");
        let manifest = if beside.is_file() {
            let name = beside
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Manifest::parse(&name, &std::fs::read(&beside).map_err(unreadable)?)?
        } else {
            Manifest::default()
        };
        let outline = component::outline(&bytes, limits)?;
        let mut report = CheckReport {
            digest: Digest::of(&bytes),
            bytes: bytes.len(),
            contract: component::CONTRACT_VERSION,
            compile_time: None,
            refusal: None,
            outline,
        };
        let began = Instant::now();
        let code = component::check_imports(&report.outline).and_then(|()| {
            let component = compile_component(&self.shared, &bytes)?;
            report.compile_time = Some(began.elapsed());
            let exports = report.outline.exports;
            let linked = link(&self.shared, &component, exports)?;
            Ok(Arc::new(Code {
                digest: report.digest,
                exports,
                linked,
            }))
        });
        match code {
            Ok(code) => Ok((report, Some(code), manifest)),
            Err(error) => {
                report.refusal = Some(error);
                Ok((report, None, manifest))
            }
        }
    }
}

impl Prepared {
    fn refused(error: LoadError) -> Self {
        Self {
            version: None,
            manifest: None,
            exports: None,
            code: Step::Refused(error),
        }
    }
}

/// What is to be said about a component before it is given to a tenant.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its size.
    pub bytes: usize,
    /// The version of the contract that this host serves, and the component was built for.
    pub contract: &'static str,
    /// What it exports and imports.
    pub outline: Outline,
    /// How long compiling took, if it came to that.
    pub compile_time: Option<Duration>,
    /// Why the host would refuse it, if it would.
    pub refusal: Option<LoadError>,
}

fn compile_component(shared: &Shared, bytes: &[u8]) -> Result<Component, LoadError> {
    Component::from_binary(&shared.engine, bytes).map_err(|error| {
        let text = format!("{error:#}");
        match error.downcast_ref::<wasmparser::BinaryReaderError>() {
            Some(_) => LoadError::Invalid(text),
            None => LoadError::Compile(text),
        }
    })
}

fn link(shared: &Shared, component: &Component, exports: Exports) -> Result<Linked, LoadError> {
    let pre = shared
        .linker
        .instantiate_pre(component)
        .map_err(|error| LoadError::Link(format!("{error:#}")))?;
    let transform = exports
        .transform
        .then(|| transform::GuestIndices::new(&pre))
        .transpose()
        .map_err(|_| LoadError::Signature {
            interface: TRANSFORM,
        })?;
    let resolve = exports
        .resolve
        .then(|| resolve::GuestIndices::new(&pre))
        .transpose()
        .map_err(|_| LoadError::Signature { interface: RESOLVE })?;
    Ok(Linked {
        pre,
        transform,
        resolve,
    })
}
