//! From a plugin's files to a version that can be called.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use wasmtime::component::Component;

use crate::backlog::Backlog;
use crate::bindings::{classify, sign};
use crate::cache::Cache;
use crate::code_id::{CodeId, Owner};
use crate::codes::Codes;
use crate::compile::compile;
use crate::component::{self, Outline};
use crate::engine::Shared;
use crate::error::{Fault, LoadError, RuntimeError};
use crate::folder::{self, Key, Standing};
use crate::grants::Grants;
use crate::instance::{CLASSIFY, Linked, RESOLVE, SIGN, TRANSFORM};
use crate::machine;
use crate::manifest::Manifest;
use crate::plugin::{Code, Plugin};
use crate::text;
use crate::turns::Turns;
use crate::types::{Digest, Exports};
use crate::v0_1::{ResolveIndices, TransformIndices};
use crate::versions::{History, VersionArchive};

/// Files read and judged at once: they are held in memory meanwhile.
const READS: usize = 4;
/// Characters of a sentence about linking: it may quote names that a component chose.
const SENTENCE: usize = 500;

/// What a plugin's files hold, by content, and what somebody said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) component: Digest,
    pub(crate) manifest: Option<Digest>,
    pub(crate) standing: Standing,
}

impl Version {
    /// A version about which nothing was said.
    #[cfg(test)]
    pub(crate) fn plain(component: Digest, manifest: Option<Digest>) -> Self {
        Self {
            component,
            manifest,
            standing: Standing::Plain,
        }
    }
}

/// What is known of a plugin before a load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// What its files held when they were judged last.
    pub(crate) judged: Option<Version>,
    /// Whether a version serves.
    pub(crate) serves: bool,
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
    /// A former version, where what is in the folder does not serve and nothing else does.
    pub(crate) standby: Option<Arc<Plugin>>,
}

pub(crate) enum Outcome {
    /// The files hold what was judged before.
    Unchanged,
    Ready(Arc<Plugin>),
    Refused(LoadError),
    /// The files hold what was rolled back before, for this reason.
    RolledBack(String),
}

/// A plugin's files, read and judged.
struct Judged {
    version: Option<Version>,
    manifest: Option<Manifest>,
    exports: Option<Exports>,
    step: Step,
}

/// What is to be done with them.
pub(crate) enum Step {
    Unchanged,
    Ready(Arc<Code>),
    Compile(Source),
    Refused(LoadError),
    RolledBack(String),
}

/// Where a component's code comes from.
pub(crate) enum Found {
    Code(Arc<Code>),
    Source(Source),
}

/// A component that is to be compiled.
pub(crate) struct Source {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    pub(crate) exports: Exports,
    /// The plugin that it is a version of, if its functions are to be kept for the next one.
    pub(crate) plugin: Option<Key>,
}

/// Reads, judges, compiles and starts plugins, away from the threads that deliver.
pub(crate) struct Loader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) archive: Arc<VersionArchive>,
    cache: Cache,
    codes: Codes,
    reads: Backlog,
    pub(crate) compiles: Turns,
}

impl Loader {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, RuntimeError> {
        let config = &shared.config;
        let cache = Cache::open(
            config.cache_dir.as_deref(),
            config.cache_bytes,
            &shared.engine,
        )?;
        let archive = VersionArchive::open(
            config.versions_dir.as_deref(),
            config.versions_kept,
            config.versions_bytes,
            config.is_host,
        )?;
        Ok(Self {
            archive: Arc::new(archive),
            cache,
            codes: Codes::default(),
            reads: Backlog::new(READS),
            compiles: Turns::new(config.loading.jobs),
            shared,
        })
    }

    /// Load a plugin, unless its files still hold `known`. Calls `compiling` before it waits for a
    /// compiler, which can take long.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &Key,
        known: Known,
        compiling: impl FnOnce(&Manifest, Option<Exports>),
    ) -> Loaded {
        let mut judged = self.judge(key, known.judged).await;
        let mut turn = None;
        if matches!(judged.step, Step::Compile(_)) {
            if let Some(manifest) = &judged.manifest {
                compiling(manifest, judged.exports);
            }
            // The bytes are not held while waiting: they are read, and digested, again.
            drop(judged);
            turn = self.compiles.wait(&key.tenant).await;
            judged = self.judge(key, known.judged).await;
        }
        let code = match judged.step {
            Step::Unchanged => Err(Outcome::Unchanged),
            Step::Refused(error) => Err(Outcome::Refused(error)),
            Step::RolledBack(reason) => Err(Outcome::RolledBack(reason)),
            Step::Ready(code) => Ok(code),
            Step::Compile(source) => self.compile(source).await.map_err(Outcome::Refused),
        };
        drop(turn);
        let outcome = match code {
            Err(outcome) => outcome,
            Ok(code) => {
                let manifest = judged.manifest.clone().unwrap_or_default();
                match self.start(key, code, manifest).await {
                    Ok(plugin) => Outcome::Ready(plugin),
                    Err(error) => Outcome::Refused(error),
                }
            }
        };
        let falls_back = match &outcome {
            Outcome::Refused(_) | Outcome::RolledBack(_) => true,
            Outcome::Ready(plugin) => self.is_tried_out(key, plugin, judged.version),
            Outcome::Unchanged => false,
        };
        let standby = if falls_back && !known.serves {
            let except = judged.version.map(|version| version.component);
            self.standby(key, except).await
        } else {
            None
        };
        Loaded {
            version: judged.version,
            manifest: judged.manifest,
            exports: judged.exports,
            outcome,
            standby,
        }
    }

    /// Prove that the component starts; the instance made for it serves the first call.
    pub(crate) async fn start(
        &self,
        key: &Key,
        code: Arc<Code>,
        manifest: Manifest,
    ) -> Result<Arc<Plugin>, LoadError> {
        let (tenant, name) = (Arc::clone(&key.tenant), key.shown());
        let plugin = Plugin::new(Arc::clone(&self.shared), tenant, name, code, manifest);
        match plugin.try_start().await {
            Ok(_) => {
                // What loading read of it, and starting ran.
                plugin.code.give_back();
                Ok(Arc::new(plugin))
            }
            Err(Fault::Signature { interface }) => Err(LoadError::Signature { interface }),
            Err(fault) => Err(LoadError::Start(fault)),
        }
    }

    async fn judge(self: &Arc<Self>, key: &Key, known: Option<Version>) -> Judged {
        let (loader, key) = (Arc::clone(self), key.clone());
        let judged = self.reads.run(move || loader.judge_blocking(&key, known));
        judged.await.unwrap_or_else(|| {
            Judged::refused(LoadError::Unreadable("reading it was given up".to_owned()))
        })
    }

    fn judge_blocking(&self, key: &Key, known: Option<Version>) -> Judged {
        // Here, where files may be read; those who look at the history later find it in memory.
        self.archive.recall(key);
        let limits = &self.shared.config.loading;
        let content = match folder::read(
            &self.shared.config.folders(),
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
            standing: content.standing,
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
        let component = Bytes::from(content.component);
        let file = format!("{}.toml", key.name);
        let manifest = content.manifest.as_deref().map_or_else(
            || Ok(Manifest::default()),
            |manifest| Manifest::parse(&file, manifest),
        );
        let config = &self.shared.config;
        let manifest = manifest.and_then(|manifest| {
            self.check_grants(key, &manifest, &file)?;
            Ok(manifest)
        });
        let nothing = Grants::default();
        let grants = manifest
            .as_ref()
            .map_or(&nothing, |manifest| &manifest.grants);
        let outline = Outline::read(&component, limits, &config.most(), grants);
        judged.exports = outline.as_ref().ok().map(|outline| outline.exports);
        let step = manifest.and_then(|manifest| {
            judged.manifest = Some(manifest);
            if let Some(reason) = self.bar(key, version) {
                return Ok(Step::RolledBack(reason));
            }
            let outline = outline?;
            if key.is_global() && !outline.exports.transform {
                return Err(LoadError::Global {
                    rule: "has to export transform, which is all that is asked of it",
                });
            }
            let found = self.find(version.component, component.clone(), &outline, Some(key))?;
            let manifest = content.manifest.as_deref();
            if let Err(error) = self
                .archive
                .keep(key, version.component, &component, manifest)
            {
                tracing::warn!(tenant = %key.tenant, plugin = %key.name,
                    "this version cannot be kept for later: {error}");
            }
            Ok(match found {
                Found::Code(code) => Step::Ready(code),
                Found::Source(source) => Step::Compile(source),
            })
        });
        judged.step = step.unwrap_or_else(Step::Refused);
        judged
    }

    /// Refuse a manifest that asks for more than its plugin may have; `file` names it.
    pub(crate) fn check_grants(
        &self,
        key: &Key,
        manifest: &Manifest,
        file: &str,
    ) -> Result<(), LoadError> {
        // What is granted is a tenant's: its store, its way to hosts.
        if key.is_global() && manifest.grants != Grants::default() {
            return Err(LoadError::Global {
                rule: "is granted nothing; take [grants] out of its manifest",
            });
        }
        manifest.grants.check(&self.shared.config.allowed, file)
    }

    /// Why the version that the files hold does not serve again.
    fn bar(&self, key: &Key, version: Version) -> Option<String> {
        if version.standing != Standing::Plain {
            return None;
        }
        self.archive.with(key, |history| {
            let record = history.bar(version)?;
            Some(record.why.clone().unwrap_or_default())
        })
    }

    /// Code from another tenant or from the cache, or what is to be compiled; neither of what the compiler
    /// refused before. `key` is the plugin that the component is a version of, if it is one's.
    pub(crate) fn find(
        &self,
        digest: Digest,
        bytes: Bytes,
        outline: &Outline,
        key: Option<&Key>,
    ) -> Result<Found, LoadError> {
        component::check_imports(outline)?;
        let exports = outline.exports;
        let owner = key.map(Owner::of);
        if let Some(code) = self.codes.find(digest, owner) {
            return Ok(Found::Code(code));
        }
        for id in CodeId::all(digest, owner) {
            let cached = self.cache.load(&self.shared.engine, id).map_err(|error| {
                LoadError::Compiler(format!("the cache cannot be read: {error}"))
            })?;
            if let Some(component) = cached {
                return Ok(Found::Code(self.adopt(id, exports, &component)?));
            }
        }
        let limits = &self.shared.config.loading;
        match self.cache.refusal(digest, limits) {
            Some(refusal) => Err(refusal),
            None => Ok(Found::Source(Source {
                digest,
                bytes,
                exports,
                plugin: key.cloned(),
            })),
        }
    }

    /// Compile a component, keep what comes out, and take it up from where it is kept.
    pub(crate) async fn compile(self: &Arc<Self>, source: Source) -> Result<Arc<Code>, LoadError> {
        if let Some((owner, known)) = self.known_functions(&source).await {
            match self.compile_with(&source, Some(owner), known).await {
                // What is known may be to blame, so this says nothing about the component.
                Err(error) if error.is_of_the_compiler() => {
                    tracing::warn!(digest = %source.digest,
                        "a plugin is compiled again without what is known of its functions: {error}");
                    self.cache.forget_functions(owner);
                }
                done => return done,
            }
        }
        let compiled = self.compile_with(&source, None, Bytes::new()).await;
        match compiled {
            Err(refusal) => {
                let (loader, digest) = (Arc::clone(self), source.digest);
                Err(spawn_blocking(move || loader.remembered(digest, refusal))
                    .await
                    .unwrap_or_else(|error| LoadError::Compiler(error.to_string())))
            }
            done => done,
        }
    }

    /// What was kept of a component's functions as its plugin's version before was compiled, and whose code it
    /// will be that is made with them. Nothing, if someone else uses that component: with code that is made
    /// without, it is compiled once for all who have it. Nor if the plugin has no history, as where a tenant was
    /// forgotten and its name is now another's.
    async fn known_functions(self: &Arc<Self>, source: &Source) -> Option<(Owner, Bytes)> {
        let digest = source.digest;
        let plugin = source
            .plugin
            .clone()
            .filter(|_| !self.codes.is_used(digest))?;
        let loader = Arc::clone(self);
        let known = move || {
            let owner = Owner::of(&plugin);
            let has_history = |history: &mut History| history.good(Some(digest)).next().is_some();
            let known = loader.archive.with(&plugin, has_history);
            Some((owner, known.then(|| loader.cache.functions(owner))??))
        };
        spawn_blocking(known).await.ok()?
    }

    /// Compile a component, for one plugin alone with what is known of its functions, or else for everyone.
    async fn compile_with(
        self: &Arc<Self>,
        source: &Source,
        for_one: Option<Owner>,
        known: Bytes,
    ) -> Result<Arc<Code>, LoadError> {
        let unkept = |error: io::Error| self.cache.unkept(error.to_string());
        let draft = self.cache.draft().map_err(unkept)?;
        let file = draft.file().map_err(unkept)?;
        let (config, engine) = (&self.shared.config, &self.shared.engine);
        let bytes = source.bytes.clone();
        compile(
            &config.compiler,
            engine,
            &config.loading,
            bytes,
            known,
            file,
            |reason| self.cache.unkept(reason),
        )
        .await?;
        let id = CodeId {
            digest: source.digest,
            owner: for_one,
        };
        let (loader, exports) = (Arc::clone(self), source.exports);
        let owner = source.plugin.as_ref().map(Owner::of);
        let taken_up = spawn_blocking(move || {
            let cache = &loader.cache;
            let unkept = |error: io::Error| cache.unkept(error.to_string());
            cache.split_functions(&draft, owner).map_err(unkept)?;
            cache.keep(&draft, id).map_err(unkept)?;
            let component = cache
                .take_up(&loader.shared.engine, id)
                .map_err(|error| LoadError::Unfit(text::clause(&error, SENTENCE)))?;
            let code = loader.adopt(id, exports, &component);
            cache.make_room(|| loader.codes.in_use());
            code
        });
        taken_up
            .await
            .unwrap_or_else(|error| Err(LoadError::Compiler(error.to_string())))
    }

    /// A refusal of the compiler, written down if it is one that does not pass.
    fn remembered(&self, digest: Digest, refusal: LoadError) -> LoadError {
        if let LoadError::CompileMemory { limit_bytes } = refusal
            && !machine::would_give(limit_bytes)
        {
            // It may have been the machine that had no more.
            return refusal;
        }
        if let Err(error) = self.cache.keep_refusal(digest, &refusal) {
            tracing::warn!(%digest, "the refusal of a plugin cannot be remembered: {error}");
        }
        refusal
    }

    /// Link compiled code, and let other tenants with the same bytes have it if it is for everyone.
    fn adopt(
        &self,
        id: CodeId,
        exports: Exports,
        component: &Component,
    ) -> Result<Arc<Code>, LoadError> {
        let linked = link(&self.shared, component, exports)?;
        let code = Arc::new(Code::new(id, exports, linked));
        self.codes.share(&code);
        Ok(code)
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
