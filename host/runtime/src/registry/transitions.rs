//! How versions of a plugin come into service and leave it. Each is one step under the registry's lock.

use std::sync::{Arc, Weak};

use super::{Entry, Registry};
use crate::folder::{Key, Standing};
use crate::loader::Version;
use crate::plugin::Plugin;
use crate::rollout::{Candidate, Rollout, RolloutMode};
use crate::types::Digest;
use crate::versions::{Calls, Judgement, Probation, Rules, VersionState};

/// Calls before which they are not written down: a handful says little of a version, and on a host with
/// thousands of plugins that are called once each, writing a file for each took most of the processor
/// time that the host had used by then.
const WORTH_WRITING: u64 = 16;

impl Registry {
    /// Let the version in the folder serve, watched if there is another to go back to.
    pub(super) fn take_over(
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
    pub(super) fn try_out(
        &self,
        entry: &mut Entry,
        key: &Key,
        plugin: Arc<Plugin>,
        version: Option<Version>,
    ) {
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
    pub(super) fn stand_in(&self, entry: &mut Entry, key: &Key, plugin: Arc<Plugin>) {
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
    /// written down, and more than a few times, so that even of a busy one it is rarely written and of ten
    /// thousand quiet ones not at all.
    pub(crate) fn count(&self) -> Vec<Key> {
        let entries = self.entries();
        let has_doubled = |(key, entry): &(&Key, &Entry)| {
            let Some(plugin) = &entry.plugin else {
                return false;
            };
            let now = entry.before.and(plugin.record.calls());
            self.archive.with(key, |history| {
                let known = history.calls(plugin.digest());
                let worth = known.calls.saturating_mul(2).max(WORTH_WRITING);
                let has_doubled = now.calls >= worth;
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
}
