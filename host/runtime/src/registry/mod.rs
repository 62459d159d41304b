//! Which version of which plugin serves, and what is wrong with the ones that do not.

mod entry;
mod global;
mod tenant;
mod transitions;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::error::LoadError;
use crate::folder::{GLOBAL, Key, Scan};
use crate::loader::{Known, Loaded, Loader, Outcome};
use crate::manifest::Manifest;
use crate::plugin::Plugin;
use crate::status::{PluginStatus, ServingState};
use crate::types::Exports;
use crate::versions::{History, Judge, Rollback, VersionArchive};

use entry::Entry;
pub use global::{GlobalPlugins, Stage};
pub use tenant::{TenantPlugins, Unready};

/// Parts of the map of tenants: a change copies one of them, so with tens of thousands of tenants each is to be
/// small.
const PARTS: usize = 1024;

/// A load to begin.
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) generation: u64,
    pub(crate) known: Known,
}

/// What became of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    /// A version took over.
    Loaded,
    Unchanged,
    /// What is in the folder does not serve.
    Refused,
}

type Part = HashMap<Arc<str>, Arc<TenantPlugins>>;

/// All entries, and for readers a snapshot of each tenant.
pub(crate) struct Registry {
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// Tenants whose plugins could never be read. Locked after the entries.
    unknown: Mutex<HashSet<Arc<str>>>,
    snapshots: Vec<ArcSwap<Part>>,
    none: Arc<TenantPlugins>,
    global: ArcSwap<GlobalPlugins>,
    loader: Arc<Loader>,
    archive: Arc<VersionArchive>,
    rollback: Rollback,
    judge: Weak<dyn Judge>,
}

impl Registry {
    /// For what the loader loads; new versions are brought before the judge.
    pub(crate) fn new(loader: Arc<Loader>, judge: Weak<dyn Judge>) -> Self {
        Self {
            archive: Arc::clone(&loader.archive),
            rollback: loader.shared.config.rollback,
            loader,
            judge,
            entries: Mutex::default(),
            unknown: Mutex::default(),
            snapshots: (0..PARTS).map(|_| ArcSwap::default()).collect(),
            none: Arc::default(),
            global: ArcSwap::default(),
        }
    }

    pub(crate) fn tenant(&self, tenant: &str) -> Arc<TenantPlugins> {
        let part = self.part(tenant).load();
        part.get(tenant)
            .map_or_else(|| Arc::clone(&self.none), Arc::clone)
    }

    pub(crate) fn global(&self) -> Arc<GlobalPlugins> {
        self.global.load_full()
    }

    /// Take up what a look into the folder found: forget what is gone, and say what to load.
    pub(crate) fn take_up(&self, scan: &Scan, now: SystemTime) -> (Vec<Task>, Vec<Key>) {
        let mut entries = self.entries();
        let mut touched = Vec::new();
        let mut unloaded = Vec::new();
        entries.retain(|key, _| {
            let stays = scan.plugins.contains_key(key) || scan.unreadable.contains(&key.tenant);
            if !stays {
                tracing::info!(tenant = %key.tenant, plugin = %key.name, "plugin unloaded");
                touched.push(Arc::clone(&key.tenant));
                self.archive.with(key, History::removed);
                unloaded.push(key.clone());
            }
            stays
        });
        let mut tasks = Vec::new();
        for (key, stamp) in &scan.plugins {
            let settled = stamp.is_settled(now);
            let entry = entries.entry(key.clone()).or_insert_with(|| {
                touched.push(Arc::clone(&key.tenant));
                Entry::new(*stamp)
            });
            let same = entry.generation > 0 && entry.stamp == *stamp;
            if same && (entry.settled || entry.loading) {
                continue;
            }
            entry.stamp = *stamp;
            entry.settled = settled;
            entry.generation += 1;
            entry.loading = true;
            let known = Known {
                judged: entry.judged,
                serves: entry.plugin.is_some(),
            };
            let generation = entry.generation;
            tasks.push(Task {
                key: key.clone(),
                generation,
                known,
            });
        }
        let before =
            std::mem::replace(&mut *self.unknown(), scan.unknown.iter().cloned().collect());
        touched.extend(before);
        touched.extend(scan.unknown.iter().cloned());
        touched.sort();
        touched.dedup();
        for tenant in touched {
            self.publish(&entries, &tenant);
        }
        (tasks, unloaded)
    }

    /// Note that a load waits for the compiler.
    pub(crate) fn compiling(&self, task: &Task, manifest: &Manifest, exports: Option<Exports>) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&task.key) else {
            return;
        };
        if entry.generation != task.generation {
            return;
        }
        entry.compiling = true;
        if entry.plugin.is_none() {
            entry.manifest = manifest.clone();
            entry.exports = exports;
            self.publish(&entries, &task.key.tenant);
        }
    }

    /// Take up what became of a load, unless a newer one has begun.
    pub(crate) fn finish(&self, task: &Task, mut loaded: Loaded) -> Finished {
        let mut entries = self.entries();
        let Some(entry) = entries
            .get_mut(&task.key)
            .filter(|e| e.generation == task.generation)
        else {
            return Finished::Unchanged;
        };
        entry.loading = false;
        entry.compiling = false;
        if let Some(standby) = loaded.standby.take().filter(|_| entry.plugin.is_none()) {
            self.stand_in(entry, &task.key, standby);
        }
        let mut passing = false;
        let finished = match loaded.outcome {
            Outcome::Unchanged if entry.is_away() => return Finished::Refused,
            Outcome::Unchanged => return Finished::Unchanged,
            Outcome::Ready(plugin) => {
                let is_other = |serving: &Arc<Plugin>| serving.digest() != plugin.digest();
                if entry.plugin.as_ref().is_some_and(is_other)
                    && self.loader.is_tried_out(&task.key, &plugin, loaded.version)
                {
                    self.try_out(entry, &task.key, plugin, loaded.version);
                } else {
                    self.take_over(entry, &task.key, plugin, loaded.version);
                }
                Finished::Loaded
            }
            Outcome::Refused(error) => {
                passing = error.may_pass();
                // What may pass is tried at each look, and need not be told at each.
                if !passing || entry.refused.as_ref() != Some(&error) {
                    tracing::warn!(tenant = %task.key.tenant, plugin = %task.key.name,
                        last_good = entry.plugin.is_some(),
                        "plugin refused: {error}");
                }
                // What says nothing about the content is tried again at the next look.
                entry.settled &= loaded.version.is_some() && !passing;
                if let Some(version) = loaded.version.filter(|_| !passing) {
                    self.archive.with(&task.key, |history| {
                        history.refused(version, error.to_string());
                    });
                }
                if entry.plugin.is_none() {
                    entry.since = SystemTime::now();
                }
                entry.rolled_back = None;
                entry.refused = Some(error);
                Finished::Refused
            }
            Outcome::RolledBack(reason) => {
                entry.refused = None;
                entry.rolled_back = Some(reason);
                Finished::Refused
            }
        };
        entry.judged = if passing { None } else { loaded.version };
        if entry.plugin.is_none() {
            entry.manifest = loaded.manifest.unwrap_or_default();
            entry.exports = loaded.exports;
        }
        self.publish(&entries, &task.key.tenant);
        finished
    }

    /// The plugins that are called.
    pub(crate) fn called(&self) -> Vec<Arc<Plugin>> {
        let entries = self.entries();
        let beside = |entry: &Entry| entry.candidate.as_ref().map(|c| Arc::clone(&c.plugin));
        entries
            .values()
            .flat_map(|entry| [entry.plugin.clone(), beside(entry)])
            .flatten()
            .collect()
    }

    pub(crate) fn status(&self) -> Vec<PluginStatus> {
        let entries = self.entries();
        let mut resolvers: HashMap<&str, &str> = HashMap::new();
        entries
            .iter()
            .map(|(key, entry)| {
                let exports = entry.plugin.as_ref().map(|p| p.exports()).or(entry.exports);
                let mut status = entry.status(key, exports);
                if entry.plugin.is_some() && exports.is_some_and(|exports| exports.resolve) {
                    let first = *resolvers.entry(&key.tenant).or_insert(&key.name);
                    if first != &*key.name {
                        let refusal = LoadError::SecondResolver {
                            first: first.to_owned(),
                        };
                        status.refused.get_or_insert(refusal.to_string());
                        let only = Exports {
                            resolve: true,
                            ..Exports::default()
                        };
                        if exports == Some(only) {
                            status.state = ServingState::Refused;
                        }
                    }
                }
                status
            })
            .collect()
    }

    /// Put a tenant's plugins, as they now are, in front of the readers.
    fn publish(&self, entries: &BTreeMap<Key, Entry>, tenant: &Arc<str>) {
        let from = Key {
            tenant: Arc::clone(tenant),
            name: Arc::from(""),
        };
        let own = entries
            .range(from..)
            .take_while(|(key, _)| key.tenant == *tenant);
        let mut plugins = TenantPlugins::default();
        if self.unknown().contains(tenant) {
            plugins.unready.push(Unready::unknown());
        }
        for (key, entry) in own {
            let Some(plugin) = &entry.plugin else {
                plugins.unready.push(entry.unready(key));
                continue;
            };
            let beside = entry.candidate.as_ref().map(|c| c.plugin.exports());
            let exports = plugin.exports().or(beside.unwrap_or_default());
            if exports.resolve {
                plugins.resolvers.push(Arc::clone(plugin));
            }
            if exports.transform {
                plugins.transforms.push(Arc::clone(plugin));
            }
            if exports.classify {
                plugins.classifiers.push(Arc::clone(plugin));
            }
            if exports.sign {
                plugins.signers.push(Arc::clone(plugin));
            }
        }
        if **tenant == *GLOBAL {
            self.global.store(Arc::new(GlobalPlugins::of(plugins)));
            return;
        }
        let part = self.part(tenant);
        let mut changed = Part::clone(&part.load());
        if plugins.is_empty() {
            changed.remove(tenant);
        } else {
            changed.insert(Arc::clone(tenant), Arc::new(plugins));
        }
        // No one else writes: the entries are locked.
        part.store(Arc::new(changed));
    }

    fn part(&self, tenant: &str) -> &ArcSwap<Part> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(tenant);
        let index = usize::try_from(hash % PARTS as u64).unwrap_or_default();
        &self.snapshots[index]
    }

    fn unknown(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
