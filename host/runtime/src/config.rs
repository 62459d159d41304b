//! How the host of plugins is set up.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::folder::PluginFolders;
use crate::grants::Grants;
use crate::imports::Services;
use crate::limits::{Limits, PartialLimits};
use crate::loading::{Compiler, LoadLimits};
use crate::tenant_log::LogConfig;
use crate::versions::Rollback;

/// Settings of a [`PluginHost`](crate::PluginHost).
#[derive(Debug, Clone)]
pub struct PluginHostConfig {
    /// The folder that holds a folder for each tenant.
    pub tenants_dir: PathBuf,
    /// The folder that holds the operator's own plugins, named `before-…` and `after-…`: transforms that run
    /// for every tenant, before and after its own. None if nothing is said.
    pub global_dir: Option<PathBuf>,
    /// Where compiled components are kept. Code found there is run, so it must belong to the host's
    /// own user with mode 0700; it is made so if it is missing. `None`: compile at every start.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of compiled code to keep; past that, what was used least recently goes. 1 GiB: some
    /// thousands of Rust components, some dozens of Python ones.
    pub cache_bytes: u64,
    /// Where the versions that served are kept, to go back to: a folder of the host's own with mode
    /// 0700, made so if it is missing. `None`: kept for as long as the host runs.
    pub versions_dir: Option<PathBuf>,
    /// Versions kept of each plugin. 5: the one that serves, the one before, and a day's mistakes.
    pub versions_kept: usize,
    /// Bytes of all of them; past that, what was kept longest ago goes, but not what serves. 8 GiB: five
    /// versions of some ten thousand Rust components.
    pub versions_bytes: u64,
    /// Whether this is the host that the folder of versions belongs to. One that only looks at what a
    /// host would make of the tenants folder writes nothing there.
    pub is_host: bool,
    /// When a new version is taken out of service again.
    pub rollback: Rollback,
    /// The limits of every plugin whose manifest does not ask for others.
    pub limits: Limits,
    /// How far above them a manifest may go; not at all where nothing is said.
    pub limit_caps: PartialLimits,
    /// What loading a plugin may take.
    pub loading: LoadLimits,
    /// Where plugins are compiled. In this process if nothing else is said: a host that loads what
    /// others wrote names a program here.
    pub compiler: Compiler,
    /// Whether an instance serves one call or several, where a manifest does not say.
    pub reuse: Reuse,
    /// Calls that run at once over all tenants. 64: past the number of cores it only serves guests
    /// that wait.
    pub max_concurrent_calls: u32,
    /// Calls that run at once for one plugin, of the operator's for one tenant, so that a tenant whose
    /// guests sleep leaves room for the others. 16: a quarter of the above.
    pub max_concurrent_calls_per_plugin: u32,
    /// How long a call waits for its place among these. 10 s: many times what calls take, and short of
    /// an attempt's deadline, so that what found no place can be told from what did not answer.
    pub place_wait: Duration,
    /// Instances kept for reuse over all tenants. 192.
    pub max_idle_instances: u32,
    /// Bytes of linear memory over all instances kept for reuse. 1 GiB.
    pub max_idle_bytes: usize,
    /// What manifests may ask for. Nothing: a host that has no services has nothing to grant.
    pub allowed: Grants,
    /// What is given to plugins that were granted it.
    pub services: Services,
    /// Where what guests log is kept, for the tenant. Nowhere if nothing is said.
    pub logs: Option<LogConfig>,
    /// Whether it also goes to the host's log, at the tracing target `wasmhook::plugin_log`. Off: the
    /// words are the tenant's, and nothing stops a guest from logging a payload.
    pub host_log: bool,
}

impl PluginHostConfig {
    /// The defaults, for plugins in `tenants_dir`, without a cache of compiled code.
    pub fn new(tenants_dir: impl Into<PathBuf>) -> Self {
        Self {
            tenants_dir: tenants_dir.into(),
            global_dir: None,
            cache_dir: None,
            cache_bytes: 1 << 30,
            versions_dir: None,
            versions_kept: 5,
            versions_bytes: 8 << 30,
            is_host: true,
            rollback: Rollback::default(),
            limits: Limits::default(),
            limit_caps: PartialLimits::default(),
            loading: LoadLimits::default(),
            compiler: Compiler::InProcess,
            reuse: Reuse::default(),
            max_concurrent_calls: 64,
            max_concurrent_calls_per_plugin: 16,
            place_wait: Duration::from_secs(10),
            max_idle_instances: 192,
            max_idle_bytes: 1 << 30,
            allowed: Grants::default(),
            services: Services::default(),
            logs: None,
            host_log: false,
        }
    }

    /// Where plugins lie.
    pub(crate) fn folders(&self) -> PluginFolders {
        PluginFolders {
            tenants: self.tenants_dir.clone(),
            global: self.global_dir.clone(),
        }
    }

    /// The highest limits that a plugin can have.
    pub(crate) fn most(&self) -> Limits {
        self.limits.raised_to(&self.limit_caps)
    }
}

/// How many calls an instance of a plugin serves, one after the other. An instance never serves
/// another tenant, another plugin or another version, and none is kept after a call that failed.
///
/// In TOML: `reuse = "fresh"`, or `reuse = { calls = 1000, seconds = 60 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Each call has an instance of its own: nothing can pass from one event to the next.
    Fresh,
    /// An instance serves up to `calls` calls within `seconds` of its start.
    UpTo {
        /// Calls served.
        calls: u32,
        /// Age in seconds.
        seconds: u32,
    },
}

impl Default for Reuse {
    /// A thousand calls or a minute.
    ///
    /// Measured with `examples/call_cost.rs`, release, on two busy cores, a 1 KiB JSON event: the
    /// `redact` plugin (Rust, `serde_json`) takes 35 µs a call fresh and 24 µs reused at the median,
    /// 80–160 µs and 60–70 µs at the 99th percentile. Guests with a larger runtime gain far more:
    /// measured earlier, one in JavaScript took 680 µs and 44 µs, one in Python 1570 µs and 54 µs.
    /// After a thousand calls the start's share is below a tenth of a microsecond in Rust and two in
    /// Python.
    fn default() -> Self {
        Self::UpTo {
            calls: 1_000,
            seconds: 60,
        }
    }
}

impl<'de> Deserialize<'de> for Reuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct UpTo {
            calls: u32,
            seconds: u32,
        }
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected \"fresh\" or { calls = …, seconds = … }"
        )]
        enum Form {
            Word(String),
            Table(UpTo),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) if word == "fresh" => Ok(Self::Fresh),
            Form::Table(UpTo { calls, seconds }) if calls > 0 && seconds > 0 => {
                Ok(Self::UpTo { calls, seconds })
            }
            _ => Err(de::Error::custom(
                "expected \"fresh\" or { calls = …, seconds = … } with both above zero",
            )),
        }
    }
}
