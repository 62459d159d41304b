//! The front: a folder of plugins, kept loaded.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

use crate::backlog::Backlog;
use crate::check::CheckReport;
use crate::config::{PluginHostConfig, Reuse};
use crate::engine::Shared;
use crate::error::{LoadError, RuntimeError};
use crate::folder::{self, Key, Looks};
use crate::loader::Loader;
use crate::plugin::Plugin;
use crate::registry::{Finished, GlobalPlugins, Registry, Task, TenantPlugins};
use crate::status::{PluginStatus, RescanReport};
use crate::types::Digest;
use crate::versions::{Judge, Judgement};

/// Loads the plugins of all tenants, and the operator's own, from their folders and keeps them loaded.
///
/// Call [`rescan`](Self::rescan) at start, whenever the folder may have changed, and every few
/// seconds at any rate, as it also ends instances that have waited too long for a next call.
pub struct PluginHost {
    inner: Arc<Inner>,
    /// Looks follow one another, and each knows what the one before saw.
    looks: Mutex<Looks>,
}

struct Inner {
    loader: Arc<Loader>,
    registry: Registry,
    /// Loads under way.
    loading: watch::Sender<usize>,
    /// Histories that are to be written down, one at a time.
    writing: Backlog,
    itself: Weak<Inner>,
}

/// What a load reports first.
enum Progress {
    Loaded,
    Unchanged,
    Refused,
    Compiling,
}

impl PluginHost {
    /// Set up the engine. No plugin is loaded yet.
    pub fn new(config: PluginHostConfig) -> Result<Self, RuntimeError> {
        if let Some(folder) = &config.global_dir {
            std::fs::read_dir(folder).map_err(|error| RuntimeError::GlobalFolder {
                path: folder.clone(),
                reason: error.to_string(),
            })?;
        }
        let shared = Arc::new(Shared::new(config)?);
        let loader = Arc::new(Loader::new(shared)?);
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| Inner {
            registry: Registry::new(Arc::clone(&loader), Weak::clone(inner) as _),
            loader,
            loading: watch::Sender::new(0),
            writing: Backlog::new(1),
            itself: Weak::clone(inner),
        });
        Ok(Self {
            inner,
            looks: Mutex::default(),
        })
    }

    /// Compare the folder with what is loaded, and load, replace and unload what changed.
    ///
    /// Returns when everything is done that needs no compiler. What does goes on in the background and
    /// takes over when it is ready; until then the version before it serves. Needs a Tokio runtime.
    pub async fn rescan(&self) -> RescanReport {
        let mut looks = self.looks.lock().await;
        let folders = self.inner.loader.shared.config.folders();
        let mut before = std::mem::take(&mut *looks);
        let look = spawn_blocking(move || {
            let scan = before.look(&folders);
            scan.map(|scan| (scan, before))
        });
        let (problem, scan) = match look.await {
            Ok(Ok((scan, seen))) => {
                *looks = seen;
                (None, scan)
            }
            Ok(Err(error)) => (Some(error.to_string()), folder::Scan::default()),
            Err(error) => (Some(error.to_string()), folder::Scan::default()),
        };
        if let Some(problem) = problem {
            // A folder that cannot be seen says nothing about the plugins in it.
            let problem = format!("the tenants folder cannot be read: {problem}");
            return RescanReport {
                problems: vec![problem],
                ..RescanReport::default()
            };
        }
        let (tasks, unloaded) = self.inner.registry.take_up(&scan, SystemTime::now());
        let mut report = RescanReport {
            unloaded: unloaded.len(),
            problems: scan.problems,
            ..RescanReport::default()
        };
        let archive = Arc::clone(&self.inner.loader.archive);
        let counted = self.inner.registry.count();
        // Nothing depends on its end.
        drop(spawn_blocking(move || {
            for key in &unloaded {
                archive.put_away(key);
            }
            for key in &counted {
                archive.persist(key);
            }
        }));
        let (progress, mut reported) = unbounded_channel();
        for task in tasks {
            let under_way = UnderWay::begin(Arc::clone(&self.inner));
            tokio::spawn(under_way.load(task, progress.clone()));
        }
        drop(progress);
        while let Some(progress) = reported.recv().await {
            match progress {
                Progress::Loaded => report.loaded += 1,
                Progress::Refused => report.refused += 1,
                Progress::Compiling => report.compiling += 1,
                Progress::Unchanged => {}
            }
        }
        drop(looks);
        self.sweep().await;
        report
    }

    /// End instances that have waited too long for a next call, and give back the memory of code that was
    /// not called since the last time. [`rescan`](Self::rescan) does this too.
    pub async fn sweep(&self) {
        let plugins = self.inner.registry.called();
        let sweep = spawn_blocking(move || {
            for plugin in plugins {
                plugin.pools.sweep(plugin.reuse);
                plugin.code.look();
            }
        });
        // It cannot be stopped, and what ends it early ends the process.
        let _ = sweep.await;
    }

    /// Wait until nothing is being loaded or compiled.
    pub async fn settled(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .inner
            .loading
            .subscribe()
            .wait_for(|loading| *loading == 0)
            .await;
    }

    /// Write down what the next start should know. Calls after it are not counted then.
    pub async fn close(&self) {
        let counted = self.inner.registry.count_all();
        let archive = Arc::clone(&self.inner.loader.archive);
        // It says in the log what it could not do.
        let _ = spawn_blocking(move || {
            for key in &counted {
                archive.persist(key);
            }
        })
        .await;
    }

    /// The plugins of a tenant, as they are now. Whoever holds the answer keeps these versions.
    pub fn tenant(&self, tenant: &str) -> Arc<TenantPlugins> {
        self.inner.registry.tenant(tenant)
    }

    /// The operator's plugins, as they are now, around those of every tenant.
    pub fn global(&self) -> Arc<GlobalPlugins> {
        self.inner.registry.global()
    }

    /// Every plugin file, by tenant and name; the operator's under [`GLOBAL`](crate::GLOBAL).
    pub fn status(&self) -> Vec<PluginStatus> {
        self.inner.registry.status()
    }

    /// Judge a component's file, with the manifest beside it, as if it were given to a tenant. Fails
    /// when the bytes are no component that could be described; a component that can be described and
    /// would be refused says so in its report. Needs a Tokio runtime.
    pub async fn check(&self, path: &Path) -> Result<CheckReport, LoadError> {
        self.inner.loader.check(path).await
    }

    /// Make a component's file ready to be called, with the manifest beside it, for this tenant and
    /// outside its folder: to try a plugin out. `reuse` goes before what the manifest says. Needs a
    /// Tokio runtime.
    pub async fn open(
        &self,
        path: &Path,
        tenant: &str,
        reuse: Option<Reuse>,
    ) -> Result<Arc<Plugin>, LoadError> {
        self.inner.loader.open(path, tenant, reuse).await
    }
}

/// Counts a load as long as it is under way, however it ends.
struct UnderWay(Arc<Inner>);

impl UnderWay {
    fn begin(inner: Arc<Inner>) -> Self {
        inner.loading.send_modify(|loading| *loading += 1);
        Self(inner)
    }

    async fn load(self, task: Task, progress: UnboundedSender<Progress>) {
        let inner = &self.0;
        let mut progress = Some(progress);
        let loaded = inner
            .loader
            .load(&task.key, task.known, |manifest, exports| {
                inner.registry.compiling(&task, manifest, exports);
                report(&mut progress, Progress::Compiling);
            })
            .await;
        let finished = match inner.registry.finish(&task, loaded) {
            Finished::Loaded => Progress::Loaded,
            Finished::Unchanged => Progress::Unchanged,
            Finished::Refused => Progress::Refused,
        };
        report(&mut progress, finished);
        self.write_down(task.key);
    }

    async fn roll_back(self, key: Key, digest: Digest, why: String) {
        let inner = &self.0;
        let standby = inner.loader.standby(&key, Some(digest)).await;
        inner.registry.roll_back(&key, digest, &why, standby);
        self.write_down(key);
    }

    /// Keep the history of a plugin for the next start; until then this is under way.
    fn write_down(self, key: Key) {
        let inner = Arc::clone(&self.0);
        // It says in the log what it could not do.
        inner
            .writing
            .add(move || self.0.loader.archive.persist(&key));
    }
}

impl Judge for Inner {
    fn judge(&self, key: &Key, digest: Digest, judgement: Judgement) {
        let Some(inner) = self.itself.upgrade() else {
            return;
        };
        let (under_way, key) = (UnderWay::begin(inner), key.clone());
        if self.registry.conclude(&key, digest, &judgement) {
            under_way.write_down(key);
            return;
        }
        match judgement {
            Judgement::Passed => {
                self.registry.passed(&key, digest);
                under_way.write_down(key);
            }
            Judgement::Failed(why) => {
                tokio::spawn(under_way.roll_back(key, digest, why));
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.loading.send_modify(|loading| *loading -= 1);
    }
}

/// Reports once; whoever waits for the report does not wait for what comes after it.
fn report(progress: &mut Option<UnboundedSender<Progress>>, what: Progress) {
    if let Some(progress) = progress.take() {
        // No one listens any more if the look was given up.
        let _ = progress.send(what);
    }
}
