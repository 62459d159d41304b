//! Which version of which plugin serves, and what is wrong with the ones that do not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::error::LoadError;
use crate::folder::{Key, Scan, Stamp, Standing};
use crate::loader::{Known, Loaded, Loader, Outcome, Version};
use crate::manifest::{FailurePolicy, Manifest};
use crate::plugin::Plugin;
use crate::rollout::{Candidate, Rollout, RolloutMode};
use crate::status::{PluginStatus, ServingState};
use crate::types::{Digest, Exports};
use crate::versions::{
    Calls, History, Judge, Judgement, Probation, Rollback, Rules, VersionArchive, VersionState,
};

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
    /// Plugins whose file is there and of which no version can serve: still loading, or refused with
    /// nothing good before it. What would have passed through one must not pass it by, so treat each
    /// as a call that failed, under its policy.
    pub unready: Vec<Unready>,
}

impl TenantPlugins {
    /// Whether the tenant has no plugin at all.
    pub fn is_empty(&self) -> bool {
        self.resolver.is_none() && self.transforms.is_empty() && self.unready.is_empty()
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
    /// Calls of that version before it was loaded, by this host or an earlier one.
    before: Calls,
    /// The version that is tried out beside it.
    candidate: Option<Arc<Candidate>>,
    /// What was said about the version that serves.
    standing: Standing,
    refused: Option<LoadError>,
    /// Why what is in the folder was rolled back.
    rolled_back: Option<String>,
    since: SystemTime,
    manifest: Manifest,
    exports: Option<Exports>,
}

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
    snapshots: Vec<ArcSwap<Part>>,
    none: Arc<TenantPlugins>,
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
        loaded.refuse_other_exports(entry.plugin.as_deref());
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
                tracing::warn!(tenant = %task.key.tenant, plugin = %task.key.name,
                    last_good = entry.plugin.is_some(),
                    "plugin refused: {error}");
                passing = error.may_pass();
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

    /// Let the version in the folder serve, watched if there is another to go back to.
    fn take_over(
        &self,
        entry: &mut Entry,
        key: &Key,
        plugin: Arc<Plugin>,
        version: Option<Version>,
    ) {
        let digest = plugin.digest();
        tracing::info!(tenant = %key.tenant, plugin = %key.name, %digest, "plugin serves");
        let standing = version.map_or(Standing::Plain, |version| version.standing);
        let is_watched = self.archive.with(key, |history| {
            entry.count(history);
            if let Some(version) = version {
                history.takes_over(version);
            }
            standing == Standing::Plain
                && self.rollback.faults > 0
                && !history.of(digest).is_some_and(|record| record.proven)
                && history.good(Some(digest)).next().is_some()
        });
        self.in_force(key, &plugin);
        entry.before = self.archive.with(key, |history| history.calls(digest));
        if is_watched {
            self.watch(key, &plugin, Rules::FirstCalls(self.rollback));
        }
        entry.serve(plugin);
        entry.standing = standing;
        entry.refused = None;
        entry.rolled_back = None;
    }

    /// Let the version in the folder be tried out beside the one that serves.
    fn try_out(&self, entry: &mut Entry, key: &Key, plugin: Arc<Plugin>, version: Option<Version>) {
        let (Some(rollout), Some(version)) = (plugin.manifest.rollout, version) else {
            return;
        };
        tracing::info!(tenant = %key.tenant, plugin = %key.name, digest = %plugin.digest(),
            ?rollout, "plugin is tried out");
        let (state, rules) = match rollout {
            Rollout::Canary(rules) => (VersionState::Canary, Rules::Canary(rules)),
            Rollout::Shadow(_) => {
                let faults = self.rollback.faults;
                (VersionState::Shadow, Rules::Shadow { faults })
            }
        };
        self.archive
            .with(key, |history| history.tried_out(version, state));
        self.watch(key, &plugin, rules);
        entry.try_out(Some(Arc::new(Candidate::new(plugin, rollout))));
        entry.refused = None;
        entry.rolled_back = None;
    }

    /// Tell a version since when it is in force.
    fn in_force(&self, key: &Key, plugin: &Plugin) {
        let since = self.archive.with(key, |history| {
            let record = history.of(plugin.digest());
            record.map(|record| record.configured)
        });
        if let Some(since) = since {
            // It is new, so no one has set it before.
            let _ = plugin.in_force.set(since);
        }
    }

    /// Hold a version, which a load has just made, to rules.
    fn watch(&self, key: &Key, plugin: &Plugin, rules: Rules) {
        let judge = Weak::clone(&self.judge);
        let probation = Probation::new(rules, key.clone(), plugin.digest(), judge);
        // It is new, so no one has set it before.
        let _ = plugin.probation.set(probation);
    }

    /// Take up the judgement of a version that was tried out. Says whether it was one.
    pub(crate) fn conclude(&self, key: &Key, digest: Digest, judgement: &Judgement) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return false;
        };
        let is_it = |candidate: &Arc<Candidate>| candidate.plugin.digest() == digest;
        let Some(candidate) = entry.candidate.clone().filter(is_it) else {
            return false;
        };
        let calls = candidate.plugin.record.calls();
        entry.try_out(None);
        match judgement {
            Judgement::Passed => {
                tracing::info!(tenant = %key.tenant, plugin = %key.name, %digest,
                    "plugin promoted: it serves");
                self.archive.with(key, |history| {
                    entry.count(history);
                    let why = format!("promoted after {} calls beside the one before", calls.calls);
                    history.promoted(digest, why);
                });
                entry.before = Calls::default();
                entry.serve(match candidate.mode() {
                    RolloutMode::Canary => Arc::clone(&candidate.plugin),
                    // What it did in the shadow is no story of a version in service.
                    RolloutMode::Shadow => {
                        let plugin = Arc::new(candidate.plugin.anew());
                        self.in_force(key, &plugin);
                        plugin
                    }
                });
                entry.standing = Standing::Plain;
            }
            Judgement::Failed(why) => {
                tracing::warn!(tenant = %key.tenant, plugin = %key.name, %digest,
                    "plugin rolled back: {why}");
                self.archive.with(key, |history| {
                    history.rolled_back(digest, why.clone(), calls);
                });
                if entry.holds(digest) {
                    entry.rolled_back = Some(why.clone());
                }
            }
        }
        self.publish(&entries, &key.tenant);
        true
    }

    /// Let a former version serve instead of what is in the folder.
    fn stand_in(&self, entry: &mut Entry, key: &Key, plugin: Arc<Plugin>) {
        let digest = plugin.digest();
        tracing::info!(tenant = %key.tenant, plugin = %key.name, %digest, "former version serves");
        self.archive.with(key, |history| {
            history.stands_in(digest, "it stands in for what is in the folder".to_owned());
        });
        self.in_force(key, &plugin);
        entry.before = self.archive.with(key, |history| history.calls(digest));
        entry.serve(plugin);
        entry.standing = Standing::Plain;
    }

    /// A version is past its first calls.
    pub(crate) fn passed(&self, key: &Key, digest: Digest) {
        self.archive.with(key, |history| history.proven(digest));
    }

    /// Take a version out of service that failed too often in its first calls, in favour of another,
    /// unless that one did no better. Says whether it was.
    pub(crate) fn roll_back(
        &self,
        key: &Key,
        digest: Digest,
        why: &str,
        standby: Option<Arc<Plugin>>,
    ) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return false;
        };
        let Some(serving) = entry.plugin.clone().filter(|p| p.digest() == digest) else {
            return false;
        };
        let calls = entry.before.and(serving.record.calls());
        let target = standby.filter(|standby| {
            self.archive.with(key, |history| {
                calls.are_worse_than(history.calls(standby.digest()))
            })
        });
        let Some(target) = target else {
            tracing::warn!(tenant = %key.tenant, plugin = %key.name, %digest,
                "the plugin goes on serving, because no former version did better: {why}");
            self.archive.with(key, |history| history.proven(digest));
            return false;
        };
        tracing::warn!(tenant = %key.tenant, plugin = %key.name, %digest,
            "plugin rolled back: {why}");
        self.archive.with(key, |history| {
            history.rolled_back(digest, why.to_owned(), calls);
        });
        if entry.holds(digest) {
            entry.rolled_back = Some(why.to_owned());
        }
        self.stand_in(entry, key, target);
        self.publish(&entries, &key.tenant);
        true
    }

    /// Count the calls of what serves. Says which plugins have been called twice as often since that was
    /// written down, so that even of a busy one it is rarely written.
    pub(crate) fn count(&self) -> Vec<Key> {
        let entries = self.entries();
        let has_doubled = |(key, entry): &(&Key, &Entry)| {
            let Some(plugin) = &entry.plugin else {
                return false;
            };
            let now = entry.before.and(plugin.record.calls());
            self.archive.with(key, |history| {
                let known = history.calls(plugin.digest());
                let has_doubled = now.calls > 0 && now.calls >= known.calls.saturating_mul(2);
                if has_doubled {
                    entry.count(history);
                }
                has_doubled
            })
        };
        let grown = entries.iter().filter(has_doubled);
        grown.map(|(key, _)| key.clone()).collect()
    }

    /// Count the calls of all that serve, for the last time. Says of which.
    pub(crate) fn count_all(&self) -> Vec<Key> {
        let entries = self.entries();
        for (key, entry) in entries.iter() {
            self.archive.with(key, |history| entry.count(history));
        }
        entries.keys().cloned().collect()
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
                        if exports
                            == Some(Exports {
                                resolve: true,
                                transform: false,
                            })
                        {
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
            before: Calls::default(),
            candidate: None,
            standing: Standing::Plain,
            refused: None,
            rolled_back: None,
            since: SystemTime::now(),
            manifest: Manifest::default(),
            exports: None,
        }
    }

    /// Put down what the calls of the version that serves have come to.
    fn count(&self, history: &mut History) {
        if let Some(plugin) = &self.plugin {
            history.counted(plugin.digest(), self.before.and(plugin.record.calls()));
        }
    }

    /// Let a version serve from now on, with nothing beside it.
    fn serve(&mut self, plugin: Arc<Plugin>) {
        self.try_out(None);
        self.plugin = Some(plugin);
        self.since = SystemTime::now();
    }

    /// Let a version be tried out beside the one that serves, or none.
    fn try_out(&mut self, candidate: Option<Arc<Candidate>>) {
        if let Some(serving) = &self.plugin {
            serving.beside.store(candidate.clone());
        }
        self.candidate = candidate;
    }

    /// Whether this version is what lies in the folder.
    fn holds(&self, digest: Digest) -> bool {
        self.judged
            .is_some_and(|version| version.component == digest)
    }

    /// Whether what is in the folder does not serve.
    fn is_away(&self) -> bool {
        self.refused.is_some() || self.rolled_back.is_some()
    }

    /// Why not, in a sentence.
    fn why_away(&self) -> Option<String> {
        let rolled_back = |why: &String| format!("it was rolled back: {why}");
        let refused = self.refused.as_ref().map(ToString::to_string);
        refused.or_else(|| self.rolled_back.as_ref().map(rolled_back))
    }

    fn unready(&self, key: &Key) -> Unready {
        Unready {
            name: Arc::clone(&key.name),
            exports: self.exports,
            reason: self
                .why_away()
                .unwrap_or_else(|| "the plugin is being loaded".to_owned()),
            loading: self.loading || !self.is_away(),
            manifest: self.manifest.clone(),
        }
    }

    fn status(&self, key: &Key, exports: Option<Exports>) -> PluginStatus {
        let plugin = self.plugin.as_ref();
        PluginStatus {
            tenant: Arc::clone(&key.tenant),
            name: Arc::clone(&key.name),
            state: match (plugin, self.candidate.as_ref().map(|c| c.mode())) {
                (Some(_), _) if self.rolled_back.is_some() => ServingState::RolledBack,
                (Some(_), Some(RolloutMode::Canary)) => ServingState::Canary,
                (Some(_), Some(RolloutMode::Shadow)) => ServingState::Shadow,
                (Some(_), None) => ServingState::Serving,
                (None, _) if self.is_away() && !self.compiling => ServingState::Refused,
                (None, _) => ServingState::Compiling,
            },
            compiling: self.compiling,
            digest: plugin.map(|plugin| plugin.digest()),
            since: self.since,
            candidate: self.candidate.as_ref().map(|candidate| candidate.status()),
            pinned: self.standing == Standing::Pinned,
            refused: self.why_away(),
            calls: plugin
                .map(|plugin| plugin.record.statistics())
                .unwrap_or_default(),
            exports,
        }
    }
}
