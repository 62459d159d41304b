//! From a plugin's files to a version that can be called.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use wasmtime::component::Component;

use crate::bindings::{classify, sign};
use crate::cache::Cache;
use crate::compile::compile;
use crate::component::{self, Outline};
use crate::engine::Shared;
use crate::error::{Fault, LoadError, RuntimeError};
use crate::folder::{self, Key};
use crate::grants::Grants;
use crate::instance::{CLASSIFY, Linked, RESOLVE, SIGN, TRANSFORM};
use crate::manifest::Manifest;
use crate::plugin::{Code, Plugin};
use crate::text;
use crate::turns::Turns;
use crate::types::{Digest, Exports};
use crate::v0_1::{ResolveIndices, TransformIndices};

/// Files read and judged at once: they are held in memory meanwhile.
const READS: usize = 4;
/// Characters of a sentence about linking: it may quote names that a component chose.
const SENTENCE: usize = 500;

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

/// A plugin's files, read and judged.
struct Judged {
    version: Option<Version>,
    manifest: Option<Manifest>,
    exports: Option<Exports>,
    step: Step,
}

/// What is to be done with them.
enum Step {
    Unchanged,
    Ready(Arc<Code>),
    Compile(Source),
    Refused(LoadError),
}

/// A component that is to be compiled.
pub(crate) struct Source {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) exports: Exports,
}

/// Reads, judges, compiles and starts plugins, away from the threads that deliver.
pub(crate) struct Loader {
    pub(crate) shared: Arc<Shared>,
    cache: Cache,
    codes: Mutex<HashMap<Digest, Weak<Code>>>,
    reads: Semaphore,
    compiles: Turns,
}

impl Loader {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, RuntimeError> {
        let config = &shared.config;
        let cache = Cache::open(
            config.cache_dir.as_deref(),
            config.cache_bytes,
            &shared.engine,
        )?;
        Ok(Self {
            cache,
            codes: Mutex::default(),
            reads: Semaphore::new(READS),
            compiles: Turns::new(config.loading.jobs),
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
        let mut judged = self.judge(key, known).await;
        let mut turn = None;
        if matches!(judged.step, Step::Compile(_)) {
            if let Some(manifest) = &judged.manifest {
                compiling(manifest, judged.exports);
            }
            // The bytes are not held while waiting: they are read, and digested, again.
            drop(judged);
            turn = self.compiles.wait(&key.tenant).await;
            judged = self.judge(key, known).await;
        }
        let code = match judged.step {
            Step::Unchanged => None,
            Step::Refused(error) => Some(Err(error)),
            Step::Ready(code) => Some(Ok(code)),
            Step::Compile(source) => Some(self.compile(source).await),
        };
        drop(turn);
        let outcome = match code {
            None => Outcome::Unchanged,
            Some(Err(error)) => Outcome::Refused(error),
            Some(Ok(code)) => {
                let manifest = judged.manifest.clone().unwrap_or_default();
                self.start(key, code, manifest).await
            }
        };
        Loaded {
            version: judged.version,
            manifest: judged.manifest,
            exports: judged.exports,
            outcome,
        }
    }

    /// Prove that the component starts; the instance made for it serves the first call.
    pub(crate) async fn start(&self, key: &Key, code: Arc<Code>, manifest: Manifest) -> Outcome {
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

    async fn judge(self: &Arc<Self>, key: &Key, known: Option<Version>) -> Judged {
        let _permit = self.reads.acquire().await.ok();
        let (loader, key) = (Arc::clone(self), key.clone());
        spawn_blocking(move || loader.judge_blocking(&key, known))
            .await
            .unwrap_or_else(|error| Judged::refused(LoadError::Unreadable(error.to_string())))
    }

    fn judge_blocking(&self, key: &Key, known: Option<Version>) -> Judged {
        let limits = &self.shared.config.loading;
        let content = match folder::read(
            &self.shared.config.tenants_dir,
            key,
            limits.component_bytes,
            limits.manifest_bytes,
        ) {
            Ok(content) => content,
            Err(error) => return Judged::refused(error),
        };
        let version = Version {
            component: Digest::of(&content.component),
            manifest: content.manifest.as_deref().map(Digest::of),
        };
        let mut judged = Judged {
            version: Some(version),
            manifest: None,
            exports: None,
            step: Step::Unchanged,
        };
        if known == Some(version) {
            return judged;
        }
        let file = format!("{}.toml", key.name);
        let manifest = content.manifest.as_deref().map_or_else(
            || Ok(Manifest::default()),
            |manifest| Manifest::parse(&file, manifest),
        );
        let config = &self.shared.config;
        let manifest = manifest.and_then(|manifest| {
            manifest.grants.check(&config.allowed, &file)?;
            Ok(manifest)
        });
        let nothing = Grants::default();
        let grants = manifest
            .as_ref()
            .map_or(&nothing, |manifest| &manifest.grants);
        let outline = component::outline(&content.component, limits, &config.most(), grants);
        judged.exports = outline.as_ref().ok().map(|outline| outline.exports);
        let step = manifest.and_then(|manifest| {
            judged.manifest = Some(manifest);
            self.find(version.component, content.component, &outline?)
        });
        judged.step = step.unwrap_or_else(Step::Refused);
        judged
    }

    /// Code from another tenant or from the cache, or what is to be compiled.
    fn find(&self, digest: Digest, bytes: Vec<u8>, outline: &Outline) -> Result<Step, LoadError> {
        component::check_imports(outline)?;
        let exports = outline.exports;
        if let Some(code) = self.codes().get(&digest).and_then(Weak::upgrade) {
            return Ok(Step::Ready(code));
        }
        Ok(match self.cache.load(&self.shared.engine, digest) {
            Some(component) => Step::Ready(self.adopt(digest, exports, &component)?),
            None => Step::Compile(Source {
                digest,
                bytes,
                exports,
            }),
        })
    }

    /// Compile a component, keep what comes out, and take it up from where it is kept.
    pub(crate) async fn compile(self: &Arc<Self>, source: Source) -> Result<Arc<Code>, LoadError> {
        let lost =
            |error: std::io::Error| LoadError::Compiler(format!("its result is lost: {error}"));
        let draft = self.cache.draft().map_err(lost)?;
        let file = draft.file().map_err(lost)?;
        let (config, engine) = (&self.shared.config, &self.shared.engine);
        let Source {
            digest,
            bytes,
            exports,
        } = source;
        compile(&config.compiler, engine, &config.loading, bytes, file).await?;
        let loader = Arc::clone(self);
        let taken_up = spawn_blocking(move || {
            loader.cache.keep(&draft, digest).map_err(lost)?;
            let component = loader
                .cache
                .take_up(&loader.shared.engine, digest)
                .map_err(|error| LoadError::Unfit(text::clause(&error, SENTENCE)))?;
            let code = loader.adopt(digest, exports, &component);
            loader.cache.make_room(&loader.serving());
            code
        });
        taken_up
            .await
            .unwrap_or_else(|error| Err(LoadError::Compiler(error.to_string())))
    }

    /// Link compiled code, and let other tenants with the same bytes have it.
    fn adopt(
        &self,
        digest: Digest,
        exports: Exports,
        component: &Component,
    ) -> Result<Arc<Code>, LoadError> {
        let linked = link(&self.shared, component, exports)?;
        let code = Arc::new(Code {
            digest,
            exports,
            linked,
        });
        let mut codes = self.codes();
        codes.retain(|_, code| code.strong_count() > 0);
        codes.insert(digest, Arc::downgrade(&code));
        Ok(code)
    }

    /// What is in use.
    fn serving(&self) -> HashSet<Digest> {
        let codes = self.codes();
        let in_use = codes.iter().filter(|(_, code)| code.strong_count() > 0);
        in_use.map(|(digest, _)| *digest).collect()
    }

    fn codes(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<Code>>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judged {
    fn refused(error: LoadError) -> Self {
        Self {
            version: None,
            manifest: None,
            exports: None,
            step: Step::Refused(error),
        }
    }
}

fn link(shared: &Shared, component: &Component, exports: Exports) -> Result<Linked, LoadError> {
    let pre = shared
        .linker
        .instantiate_pre(component)
        .map_err(|error| LoadError::Link(text::clause(&format!("{error:#}"), SENTENCE)))?;
    macro_rules! find {
        ($export:ident, $indices:path, $interface:ident) => {
            exports
                .$export
                .then(|| $indices(&pre))
                .transpose()
                .map_err(|_| LoadError::Signature {
                    interface: $interface,
                })?
        };
    }
    Ok(Linked {
        transform: find!(transform, TransformIndices::new, TRANSFORM),
        resolve: find!(resolve, ResolveIndices::new, RESOLVE),
        classify: find!(classify, classify::GuestIndices::new, CLASSIFY),
        sign: find!(sign, sign::GuestIndices::new, SIGN),
        pre,
    })
}
