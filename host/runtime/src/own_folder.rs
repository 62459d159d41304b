//! A folder that is the host's alone: what lies in it is trusted as the host's own code is.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that belongs to the host's user and is closed to all others.
pub(crate) struct OwnFolder {
    path: PathBuf,
    /// Removed at the end, where no folder was given.
    _temporary: Option<TempDir>,
}

/// Why a folder cannot be the host's own.
#[derive(Debug)]
pub(crate) struct NotOwn {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl OwnFolder {
    /// Make the folder if it is missing, and see that it is the host's alone; with none, one for as long as
    /// this lives, whose name begins with `prefix`.
    pub(crate) fn open(folder: Option<&Path>, prefix: &str) -> Result<Self, NotOwn> {
        match folder {
            Some(path) => {
                claim(path).map_err(|reason| NotOwn {
                    path: path.to_owned(),
                    reason,
                })?;
                Ok(Self::unclaimed(path))
            }
            None => Self::temporary(prefix),
        }
    }

    /// The same without making or judging a folder that is given: for who only reads there.
    pub(crate) fn look(folder: Option<&Path>, prefix: &str) -> Result<Self, NotOwn> {
        folder.map_or_else(|| Self::temporary(prefix), |path| Ok(Self::unclaimed(path)))
    }

    /// A folder that is taken as it is.
    pub(crate) fn unclaimed(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _temporary: None,
        }
    }

    fn temporary(prefix: &str) -> Result<Self, NotOwn> {
        let made = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| NotOwn {
                path: std::env::temp_dir(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            path: made.path().to_owned(),
            _temporary: Some(made),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Make the folder, and see that it is the host's alone.
fn claim(folder: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| error.to_string())?;
    let metadata = fs::metadata(folder).map_err(|error| error.to_string())?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("the folder belongs to another user".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("the folder is open to other users; make its mode 0700".to_owned());
    }
    Ok(())
}
