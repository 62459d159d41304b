//! Which version of which plugin serves, and what is wrong with the ones that do not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::error::LoadError;
use crate::folder::{Key, Scan, Stamp};
use crate::loader::{Loaded, Outcome, Version};
use crate::manifest::{FailurePolicy, Manifest};
use crate::plugin::Plugin;
use crate::status::{PluginStatus, ServingState};
use crate::types::Exports;

/// Parts of the map of tenants: a change copies one of them.
const PARTS: usize = 64;

/// The plugins of one tenant, as they were at one moment.
#[derive(Debug, Default)]
pub struct TenantPlugins {
    /// The plugin that chooses endpoints: the first by name that exports `resolve`. A further one is
    /// refused as a resolver, with a reason in the status.
    pub resolver: Option<Arc<Plugin>>,
    /// The plugins that export `transform`, in the order of their names.
    pub transforms: Vec<Arc<Plugin>>,
    /// The plugins that export `classify`, in the order of their names.
    pub classifiers: Vec<Arc<Plugin>>,
    /// The plugins that export `sign`: each for the endpoints that name it.
    pub signers: Vec<Arc<Plugin>>,
    /// Plugins whose file is there and of which no version can serve: still loading, or refused with
    /// nothing good before it. What would have passed through one must not pass it by, so treat each
    /// as a call that failed, under its policy.
    pub unready: Vec<Unready>,
}

impl TenantPlugins {
    /// Whether the tenant has no plugin at all.
    pub fn is_empty(&self) -> bool {
        self.resolver.is_none()
            && self.transforms.is_empty()
            && self.classifiers.is_empty()
            && self.signers.is_empty()
            && self.unready.is_empty()
    }
}

/// A plugin of which no version can serve.
#[derive(Debug, Clone)]
pub struct Unready {
    /// Its name.
    pub name: Arc<str>,
    /// What it exports, where that could be found out.
    pub exports: Option<Exports>,
    /// Why it does not serve, in a sentence.
    pub reason: String,
    /// Whether a version is on its way: nothing is wrong with the plugin, it is not ready yet.
    pub loading: bool,
    manifest: Manifest,
}

impl Unready {
    /// What becomes of a delivery; [`FailurePolicy::Retry`] as long as its manifest is not known.
    pub fn policy(&self) -> FailurePolicy {
        self.manifest.failure
    }

    /// Whether it would see events of this type; every type as long as its manifest is not known.
    pub fn sees(&self, event_type: &str) -> bool {
        self.manifest.sees(event_type)
    }
}

/// One plugin file.
struct Entry {
    /// The files' stamp at the last load, and whether an equal one proves equal content.
    stamp: Stamp,
    settled: bool,
    /// Counts loads, so that one that was overtaken is dropped.
    generation: u64,
    loading: bool,
    compiling: bool,
    /// What was served or refused last.
    judged: Option<Version>,
    plugin: Option<Arc<Plugin>>,
    refused: Option<LoadError>,
    since: SystemTime,
    manifest: Manifest,
    exports: Option<Exports>,
}

/// A load to begin.
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) generation: u64,
    pub(crate) known: Option<Version>,
}

type Part = HashMap<Arc<str>, Arc<TenantPlugins>>;

/// All entries, and for readers a snapshot of each tenant.
pub(crate) struct Registry {
    entries: Mutex<BTreeMap<Key, Entry>>,
    snapshots: Vec<ArcSwap<Part>>,
    none: Arc<TenantPlugins>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            snapshots: (0..PARTS).map(|_| ArcSwap::default()).collect(),
            none: Arc::default(),
        }
    }

    pub(crate) fn tenant(&self, tenant: &str) -> Arc<TenantPlugins> {
        let part = self.part(tenant).load();
        part.get(tenant)
            .map_or_else(|| Arc::clone(&self.none), Arc::clone)
    }

    /// Take up what a look into the folder found: forget what is gone, and say what to load.
    pub(crate) fn take_up(&self, scan: &Scan, now: SystemTime) -> (Vec<Task>, usize) {
        let mut entries = self.entries();
        let mut touched = Vec::new();
        let before = entries.len();
        entries.retain(|key, _| {
            let stays = scan.plugins.contains_key(key) || scan.unreadable.contains(&key.tenant);
            if !stays {
                tracing::info!(tenant = %key.tenant, plugin = %key.name, "plugin unloaded");
                touched.push(Arc::clone(&key.tenant));
            }
            stays
        });
        let unloaded = before - entries.len();
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
            let (generation, known) = (entry.generation, entry.judged);
            tasks.push(Task {
                key: key.clone(),
                generation,
                known,
            });
        }
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

    /// Take up what became of a load, unless a newer one has begun. Says whether anything changed, or
    /// why the file was refused.
    pub(crate) fn finish(&self, task: &Task, loaded: Loaded) -> Result<bool, LoadError> {
        let mut entries = self.entries();
        let Some(entry) = entries
            .get_mut(&task.key)
            .filter(|e| e.generation == task.generation)
        else {
            return Ok(false);
        };
        entry.loading = false;
        entry.compiling = false;
        let result = match loaded.outcome {
            Outcome::Unchanged => return entry.refused.clone().map_or(Ok(false), Err),
            Outcome::Ready(plugin) => {
                tracing::info!(tenant = %task.key.tenant, plugin = %task.key.name,
                    digest = %plugin.digest(), "plugin serves");
                entry.plugin = Some(plugin);
                entry.refused = None;
                entry.since = SystemTime::now();
                Ok(true)
            }
            Outcome::Refused(error) => {
                tracing::warn!(tenant = %task.key.tenant, plugin = %task.key.name,
                    last_good = entry.plugin.is_some(), "plugin refused: {error}");
                // What says nothing about the content is tried again at the next look.
                entry.settled &= loaded.version.is_some() && !error.may_pass();
                if entry.plugin.is_none() {
                    entry.since = SystemTime::now();
                }
                entry.refused = Some(error.clone());
                Err(error)
            }
        };
        let passing = matches!(&result, Err(error) if error.may_pass());
        entry.judged = if passing { None } else { loaded.version };
        if entry.plugin.is_none() {
            entry.manifest = loaded.manifest.unwrap_or_default();
            entry.exports = loaded.exports;
        }
        self.publish(&entries, &task.key.tenant);
        result
    }

    /// The plugins that serve.
    pub(crate) fn serving(&self) -> Vec<Arc<Plugin>> {
        self.entries()
            .values()
            .filter_map(|entry| entry.plugin.clone())
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
        for (key, entry) in own {
            let Some(plugin) = &entry.plugin else {
                plugins.unready.push(entry.unready(key));
                continue;
            };
            if plugin.exports().resolve && plugins.resolver.is_none() {
                plugins.resolver = Some(Arc::clone(plugin));
            }
            if plugin.exports().transform {
                plugins.transforms.push(Arc::clone(plugin));
            }
            if plugin.exports().classify {
                plugins.classifiers.push(Arc::clone(plugin));
            }
            if plugin.exports().sign {
                plugins.signers.push(Arc::clone(plugin));
            }
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

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            settled: false,
            generation: 0,
            loading: false,
            compiling: false,
            judged: None,
            plugin: None,
            refused: None,
            since: SystemTime::now(),
            manifest: Manifest::default(),
            exports: None,
        }
    }

    fn unready(&self, key: &Key) -> Unready {
        Unready {
            name: Arc::clone(&key.name),
            exports: self.exports,
            reason: self.refused.as_ref().map_or_else(
                || "the plugin is being loaded".to_owned(),
                ToString::to_string,
            ),
            loading: self.loading || self.refused.is_none(),
            manifest: self.manifest.clone(),
        }
    }

    fn status(&self, key: &Key, exports: Option<Exports>) -> PluginStatus {
        let plugin = self.plugin.as_ref();
        PluginStatus {
            tenant: Arc::clone(&key.tenant),
            name: Arc::clone(&key.name),
            state: match (plugin, &self.refused) {
                (Some(_), _) => ServingState::Serving,
                (None, Some(_)) if !self.compiling => ServingState::Refused,
                _ => ServingState::Compiling,
            },
            compiling: self.compiling,
            digest: plugin.map(|plugin| plugin.digest()),
            since: self.since,
            refused: self.refused.as_ref().map(ToString::to_string),
            calls: plugin
                .map(|plugin| plugin.record.statistics())
                .unwrap_or_default(),
            exports,
        }
    }
}
