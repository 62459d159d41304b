//! What is wrong with a tenant's files, in words for its operator.

use std::fmt;
use std::path::PathBuf;

use wasmhook_core::TenantId;

/// The folder could not be read at all, so there is nothing to start with.
#[derive(Debug, thiserror::Error)]
#[error("the tenants folder {path} cannot be read", path = path.display())]
pub struct LoadError {
    /// The folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// Something that is wrong with the files of a tenant, or of the folder itself. It never holds the
/// content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Whose problem it is; `None` when it is no valid tenant's.
    pub tenant: Option<TenantId>,
    /// The file or folder.
    pub path: PathBuf,
    /// The key within the file, such as `endpoints[0].url`, or the endpoint or secret meant.
    pub key: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl Problem {
    pub(crate) fn of(
        tenant: &TenantId,
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            tenant: Some(tenant.clone()),
            path: path.into(),
            key: None,
            reason: reason.into(),
        }
    }

    pub(crate) fn at(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// How one tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantStatus {
    /// The tenant.
    pub id: TenantId,
    /// Endpoints in use, disabled ones included.
    pub endpoints: usize,
    /// Whether its `tenant.toml` is unusable and an earlier version of it is in use.
    pub last_good: bool,
    /// What is wrong, if anything.
    pub problems: Vec<Problem>,
}
