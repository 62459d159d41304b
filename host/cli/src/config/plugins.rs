//! `[plugins]`: what tenants' code may take, keep and reach.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Span, seconds};

/// `[plugins]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plugins {
    /// Holds the operator's own plugins, named `before-…` and `after-…`: transforms that run for every tenant,
    /// before and after its own. None: whose events they are decides what becomes of them.
    pub(crate) global: Option<PathBuf>,
    /// Where compiled components are kept. Whoever can write there can run code as the host.
    pub(crate) cache: PathBuf,
    /// Bytes of compiled components kept; past that, what was used least recently goes.
    pub(crate) cache_bytes: u64,
    /// Where the versions of plugins that served are kept, to go back to. The folder is the host's alone.
    pub(crate) versions: PathBuf,
    /// Versions kept of each plugin. 5: the one that serves, the one before, and a day's mistakes.
    pub(crate) versions_kept: usize,
    /// Bytes of all of them; past that, what was kept longest ago goes, but not what serves.
    pub(crate) versions_bytes: u64,
    /// A new version is rolled back once calls for so many `faults` events of its first `calls` calls
    /// trapped, went over a limit, or gave what cannot be used; with 0 faults never.
    pub(crate) rollback: wasmhook_runtime::Rollback,
    /// Bounds of every call whose plugin's manifest does not ask for others.
    pub(crate) limits: wasmhook_runtime::Limits,
    /// How far above `limits` a manifest may go, key by key; not at all where nothing is said.
    pub(crate) limit_caps: wasmhook_runtime::PartialLimits,
    /// Bounds of loading and compiling one plugin.
    pub(crate) loading: wasmhook_runtime::LoadLimits,
    /// Calls that run at once over all tenants. Each reserves a stack and address space.
    pub(crate) concurrency: u32,
    /// Calls that run at once for one plugin, of a global one for one tenant, so that a slow one leaves
    /// room for the others.
    pub(crate) max_per_plugin: u32,
    /// Instances kept between calls over all tenants.
    pub(crate) idle_instances: u32,
    /// Bytes of memory of these instances in all.
    pub(crate) idle_bytes: usize,
    /// Time for all plugins of one attempt. 15 s: several calls at their default wall time.
    pub(crate) budget: Span,
    /// Whether an instance serves one call or several: `"fresh"` or `{ calls, seconds }`.
    pub(crate) reuse: wasmhook_runtime::Reuse,
    /// What manifests may ask for under `[grants]`. The key-value store by default, for its quota bounds it.
    pub(crate) grants: Grants,
    /// What one tenant's plugins may keep in it.
    pub(crate) key_value: KeyValueQuota,
    /// Where what plugins log is kept for their tenants; read with `wasmhook plugins logs`.
    pub(crate) log: PluginLog,
    /// Whether what guests log is also written to the host's log. Off: a guest may log a payload.
    pub(crate) host_log: bool,
}

impl Default for Plugins {
    fn default() -> Self {
        let runtime = wasmhook_runtime::PluginHostConfig::new("");
        Self {
            global: None,
            cache: "data/cache".into(),
            cache_bytes: runtime.cache_bytes,
            versions: "data/versions".into(),
            versions_kept: runtime.versions_kept,
            versions_bytes: runtime.versions_bytes,
            rollback: runtime.rollback,
            limits: runtime.limits,
            limit_caps: runtime.limit_caps,
            loading: runtime.loading,
            concurrency: runtime.max_concurrent_calls,
            max_per_plugin: runtime.max_concurrent_calls_per_plugin,
            idle_instances: runtime.max_idle_instances,
            idle_bytes: runtime.max_idle_bytes,
            budget: seconds(15),
            reuse: runtime.reuse,
            grants: Grants::default(),
            key_value: KeyValueQuota::default(),
            log: PluginLog::default(),
            host_log: runtime.host_log,
        }
    }
}

/// `[plugins.log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginLog {
    /// Holds a folder for each tenant.
    pub(crate) folder: PathBuf,
    /// Bytes kept of one tenant; 0 keeps nothing. 512 KiB: some thousand lines, and 5 GiB for ten thousand
    /// tenants that all log as much as they may.
    pub(crate) bytes: u64,
    /// Lines of one tenant in a second. 50: more is read by nobody.
    pub(crate) lines_per_second: u32,
}

impl Default for PluginLog {
    fn default() -> Self {
        Self {
            folder: "data/plugin-logs".into(),
            bytes: 512 << 10,
            lines_per_second: 50,
        }
    }
}

/// `[plugins.grants]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grants {
    /// The tenant's own key-value store.
    pub(crate) key_value: bool,
    /// Hosts that plugins may send HTTP requests to, such as `api.example.com`, `*.example.com`, or `*` for any
    /// that deliveries may go to. None: a manifest lies in the tenant's folder, and what a tenant's code
    /// may call from this machine's address is for the operator to say.
    pub(crate) http: Vec<wasmhook_runtime::HostPattern>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            key_value: true,
            http: Vec::new(),
        }
    }
}

impl Grants {
    pub(crate) fn allowed(&self) -> wasmhook_runtime::Grants {
        wasmhook_runtime::Grants {
            key_value: self.key_value,
            http: self.http.clone(),
        }
    }
}

/// `[plugins.key_value]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeyValueQuota {
    /// Keys of one tenant. 10 000: what was seen in an hour of a busy tenant, or a counter per customer.
    pub(crate) keys: u64,
    /// Bytes of keys and values of one tenant. 4 MiB: a thousand tenants that use all of it take 4 GiB of
    /// the store, as many as a million deliveries do.
    pub(crate) bytes: u64,
}

impl Default for KeyValueQuota {
    fn default() -> Self {
        Self {
            keys: 10_000,
            bytes: 4 << 20,
        }
    }
}
