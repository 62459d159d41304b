//! What an operator is told about plugins.

use std::sync::Arc;
use std::time::SystemTime;

use crate::record::CallStatistics;
use crate::rollout::CandidateStatus;
use crate::types::{Digest, Exports};

/// One plugin file and what serves for it.
#[derive(Debug, Clone)]
pub struct PluginStatus {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The file's name without `.wasm`.
    pub name: Arc<str>,
    /// Whether a version serves.
    pub state: ServingState,
    /// Whether a version is being compiled: the first, or the next one while the last good serves.
    pub compiling: bool,
    /// The version that serves.
    pub digest: Option<Digest>,
    /// Since when it serves; with none that serves, since when that is so.
    pub since: SystemTime,
    /// The version that is tried out beside it.
    pub candidate: Option<CandidateStatus>,
    /// Whether the version was pinned, so that it serves whatever lies in the folder beside it.
    pub pinned: bool,
    /// Why what lies in the folder now does not serve, in a sentence. With a version serving, that is
    /// the last good one.
    pub refused: Option<String>,
    /// What became of the calls of the version that serves.
    pub calls: CallStatistics,
    /// What it exports, where that could be found out.
    pub exports: Option<Exports>,
}

/// Whether a plugin serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServingState {
    /// A version serves.
    Serving,
    /// None does, and the file was refused.
    Refused,
    /// None does yet: the first is being loaded.
    Compiling,
    /// A former version serves, because the one in the folder failed too often.
    RolledBack,
    /// A version serves, and a share of the events goes to the one in the folder.
    Canary,
    /// A version serves, and the one in the folder is compared with it.
    Shadow,
}

/// What a look into the tenants folder changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescanReport {
    /// Plugins of which a new version serves.
    pub loaded: usize,
    /// Plugins whose file is gone.
    pub unloaded: usize,
    /// Plugins whose new file was refused.
    pub refused: usize,
    /// Plugins that go on being compiled in the background; each takes over when it is done.
    pub compiling: usize,
    /// What is wrong in the folder itself, in sentences.
    pub problems: Vec<String>,
}
