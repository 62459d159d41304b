//! Tenants folder of wasmhook: endpoints and secrets read from disk, and the watch that notices
//! changes.
//!
//! [`Tenants`] holds what was last read in memory and answers from there without a lock, so the hot
//! path never touches the disk. [`Tenants::reload`] reads again; what has become unusable keeps its
//! last good version and is told by [`Tenants::problems`]. [`FolderWatch`] says when to reload.
//!
//! Everything is looked up by tenant first: there is no name by which one tenant can reach an
//! endpoint or a secret of another.
#![forbid(unsafe_code)]

mod document;
mod environment;
mod places;
mod ports;
pub mod problem;
mod reach;
mod scan;
mod secrets;
mod snapshot;
mod stamp;
pub mod tenants;
pub mod watch;

pub use environment::Environment;
pub use problem::{LoadError, Problem, TenantStatus};
pub use tenants::{Tenants, TenantsConfig};
pub use watch::FolderWatch;
