//! The versions that a plugin had: their bytes, their history, and whether a new one keeps its place.
//!
//! A version is a component's content, named by its digest. The archive is the host's own, so that it
//! can go back to a version whose file is gone.

mod archive;
mod control;
mod files;
mod history;
mod probation;
mod room;

pub use archive::VersionArchive;
pub use control::{ControlError, PluginFiles};
pub use files::{ArchiveError, Kept};
pub use history::{VersionRecord, VersionState};
pub use probation::Rollback;

pub(crate) use history::{Calls, History};
pub(crate) use probation::{Judge, Judgement, Probation, Rules};
