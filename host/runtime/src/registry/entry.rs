//! One plugin file, and what serves for it.

use std::sync::Arc;
use std::time::SystemTime;

use super::Unready;
use crate::error::LoadError;
use crate::folder::{Key, Stamp, Standing};
use crate::loader::Version;
use crate::manifest::Manifest;
use crate::plugin::Plugin;
use crate::rollout::{Candidate, RolloutMode};
use crate::status::{PluginStatus, ServingState};
use crate::types::{Digest, Exports};
use crate::versions::{Calls, History};

/// One plugin file.
pub(super) struct Entry {
    /// The files' stamp at the last load, and whether an equal one proves equal content.
    pub(super) stamp: Stamp,
    pub(super) settled: bool,
    /// Counts loads, so that one that was overtaken is dropped.
    pub(super) generation: u64,
    pub(super) loading: bool,
    pub(super) compiling: bool,
    /// What was served or refused last.
    pub(super) judged: Option<Version>,
    pub(super) plugin: Option<Arc<Plugin>>,
    /// Calls of that version before it was loaded, by this host or an earlier one.
    pub(super) before: Calls,
    /// The version that is tried out beside it.
    pub(super) candidate: Option<Arc<Candidate>>,
    /// What was said about the version that serves.
    pub(super) standing: Standing,
    pub(super) refused: Option<LoadError>,
    /// Why what is in the folder was rolled back.
    pub(super) rolled_back: Option<String>,
    pub(super) since: SystemTime,
    pub(super) manifest: Manifest,
    pub(super) exports: Option<Exports>,
}

impl Entry {
    pub(super) fn new(stamp: Stamp) -> Self {
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
    pub(super) fn count(&self, history: &mut History) {
        if let Some(plugin) = &self.plugin {
            history.counted(plugin.digest(), self.before.and(plugin.record.calls()));
        }
    }

    /// Let a version serve from now on, with nothing beside it.
    pub(super) fn serve(&mut self, plugin: Arc<Plugin>) {
        self.try_out(None);
        self.plugin = Some(plugin);
        self.since = SystemTime::now();
    }

    /// Let a version be tried out beside the one that serves, or none.
    pub(super) fn try_out(&mut self, candidate: Option<Arc<Candidate>>) {
        if let Some(serving) = &self.plugin {
            serving.beside.store(candidate.clone());
        }
        self.candidate = candidate;
    }

    /// Whether this version is what lies in the folder.
    pub(super) fn holds(&self, digest: Digest) -> bool {
        self.judged
            .is_some_and(|version| version.component == digest)
    }

    /// Whether what is in the folder does not serve.
    pub(super) fn is_away(&self) -> bool {
        self.refused.is_some() || self.rolled_back.is_some()
    }

    /// Why not, in a sentence.
    pub(super) fn why_away(&self) -> Option<String> {
        let rolled_back = |why: &String| format!("it was rolled back: {why}");
        let refused = self.refused.as_ref().map(ToString::to_string);
        refused.or_else(|| self.rolled_back.as_ref().map(rolled_back))
    }

    pub(super) fn unready(&self, key: &Key) -> Unready {
        Unready {
            name: key.shown(),
            exports: self.exports,
            reason: self
                .why_away()
                .unwrap_or_else(|| "the plugin is being loaded".to_owned()),
            loading: self.loading || !self.is_away(),
            manifest: self.manifest.clone(),
        }
    }

    pub(super) fn status(&self, key: &Key, exports: Option<Exports>) -> PluginStatus {
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
            // One that was pinned goes on while what is in the file cannot serve.
            pinned: self.standing == Standing::Pinned && self.stamp.is_pinned(),
            refused: self.why_away(),
            calls: plugin
                .map(|plugin| plugin.record.statistics())
                .unwrap_or_default(),
            exports,
        }
    }
}
