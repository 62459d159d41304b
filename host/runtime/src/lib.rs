//! Runs the WebAssembly components of tenants: loading, compiling, caching, limits, hot reload, calls.
//!
//! [`PluginHost`] keeps the plugins of a tenants folder loaded; [`PluginHost::tenant`] gives the ones
//! that serve a tenant at this moment; [`Plugin::transform`] and [`Plugin::resolve`] call them, within
//! the [`Limits`]. A file that cannot serve leaves the last good version in its place, and
//! [`PluginHost::status`] says why.
//!
//! What a guest logs or prints goes to a file of its tenant ([`LogConfig`]), and to the tracing target
//! `wasmhook::plugin_log` only with [`PluginHostConfig::host_log`] switched on: the words are the tenant's, and a panic's
//! may hold the payload. No error holds anything that it wrote, except [`Fault::Guest`].
//!
//! This is the one place where wasmtime is known.

#![deny(unsafe_code)]

mod adapt;
mod artifact;
mod backlog;
mod bindings;
mod budget;
mod cache;
mod call;
mod check;
mod child;
mod classify;
mod code_id;
mod codes;
mod compile;
mod component;
mod config;
mod engine;
mod error;
mod folder;
mod former;
mod functions;
mod grants;
mod guest_log;
mod host;
mod host_pattern;
mod imports;
mod instance;
mod keepers;
mod lane;
mod limits;
mod loader;
mod loading;
mod machine;
mod manifest;
mod meter;
mod own_folder;
mod plugin;
mod pools;
mod printed;
mod question;
mod record;
mod registry;
mod resident;
mod rollout;
mod sign;
mod state;
mod status;
mod tenant_log;
mod text;
mod turns;
mod types;
mod v0_1;
mod versions;
mod wasi;

pub use check::{CheckReport, StartCost};
pub use child::run_compiler;
pub use component::{CONTRACT_VERSION, Import, Outline};
pub use config::{PluginHostConfig, Reuse};
pub use error::{Fault, LoadError, PluginError, RuntimeError};
pub use folder::{GLOBAL, PluginFolders};
pub use grants::Grants;
pub use host::PluginHost;
pub use host_pattern::{HostPattern, InvalidHostPattern};
pub use imports::Services;
pub use imports::http_client::{HttpBounds, HttpClient, HttpError, HttpRequest, HttpResponse};
pub use imports::key_value::{KeyValueError, KeyValueStore};
pub use imports::signing::{Hash, KeyError, KeyForm, Signer};
pub use limits::{Limits, PartialLimits};

pub use loading::{Compiler, LoadLimits};
pub use manifest::{FailurePolicy, Manifest};
pub use plugin::Plugin;
pub use record::CallStatistics;
pub use registry::{GlobalPlugins, Stage, TenantPlugins, Unready};
pub use rollout::{
    Canary, CandidateStatus, Comparisons, Difference, Rollout, RolloutMode, ShadowRules,
};
pub use status::{PluginStatus, RescanReport, ServingState};
pub use tenant_log::{LogConfig, LogLine, forget_log, log_files};
pub use types::{
    Call, CallResult, Choice, Classification, Digest, EndpointView, EventView, Exports, Judgement,
    Mode, NewEndpoint, NotADigest, Request, Resolution, ResponseView, UnsignedView, Verdict,
};
pub use versions::{
    ArchiveError, ControlError, Kept, PluginFiles, Rollback, VersionArchive, VersionRecord,
    VersionState,
};
