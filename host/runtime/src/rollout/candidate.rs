//! The version beside the one that serves.

use std::sync::Arc;
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

use super::shadow::{Comparisons, Shadow};
use super::{Canary, Rollout};
use crate::plugin::Plugin;
use crate::record::CallStatistics;
use crate::types::{Digest, Exports};

/// A version that does not serve yet.
pub(crate) struct Candidate {
    pub(crate) plugin: Arc<Plugin>,
    since: SystemTime,
    mode: Mode,
}

enum Mode {
    Canary(Canary),
    Shadow(Arc<Shadow>),
}

/// How a version is tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RolloutMode {
    /// A share of the events goes to it.
    Canary,
    /// It sees events, and nothing that it makes is sent.
    Shadow,
}

/// A version beside the one that serves.
#[derive(Debug, Clone)]
pub struct CandidateStatus {
    /// The version.
    pub digest: Digest,
    /// What it exports, which may be other than what the version that serves does.
    pub exports: Exports,
    /// How it is tried out.
    pub mode: RolloutMode,
    /// Since when.
    pub since: SystemTime,
    /// What became of its calls.
    pub calls: CallStatistics,
    /// What comparing its answers came to, if it is a shadow.
    pub comparisons: Option<Comparisons>,
}

impl Candidate {
    pub(crate) fn new(plugin: Arc<Plugin>, rollout: Rollout) -> Self {
        let mode = match rollout {
            Rollout::Canary(rules) => Mode::Canary(rules),
            Rollout::Shadow(rules) => Mode::Shadow(Arc::new(Shadow::new(rules))),
        };
        Self {
            plugin,
            since: SystemTime::now(),
            mode,
        }
    }

    pub(crate) fn mode(&self) -> RolloutMode {
        match self.mode {
            Mode::Canary(_) => RolloutMode::Canary,
            Mode::Shadow(_) => RolloutMode::Shadow,
        }
    }

    pub(crate) fn status(&self) -> CandidateStatus {
        CandidateStatus {
            digest: self.plugin.digest(),
            exports: self.plugin.exports(),
            mode: self.mode(),
            since: self.since,
            calls: self.plugin.record.statistics(),
            comparisons: self.shadow().map(|shadow| shadow.comparisons()),
        }
    }

    /// Whether an event goes to it.
    pub(crate) fn takes(&self, event: &str) -> bool {
        match self.mode {
            Mode::Canary(Canary { percent, .. }) => {
                xxh3_64(event.as_bytes()) % 100 < u64::from(percent)
            }
            Mode::Shadow(_) => false,
        }
    }

    /// The shadow, if it is one.
    pub(super) fn shadow(&self) -> Option<&Arc<Shadow>> {
        match &self.mode {
            Mode::Canary(_) => None,
            Mode::Shadow(shadow) => Some(shadow),
        }
    }
}
