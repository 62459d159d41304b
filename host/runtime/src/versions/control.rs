//! What somebody says about a plugin's versions, as files in the tenant's own folder: seen alike by every
//! host that shares it, and by whoever looks into it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::archive::key;
use crate::folder::{COMPONENT, GLOBAL, Key, PINNED, PROMOTED, PluginFolders};
use crate::types::Digest;

/// Readable by a host that runs as another user than who speaks.
const MODE: u32 = 0o644;

/// The files of one plugin.
#[derive(Debug, Clone)]
pub struct PluginFiles {
    folders: PluginFolders,
    folder: PathBuf,
    key: Key,
}

/// Why a file of a plugin could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The tenant or the plugin has a name that no file has.
    #[error("{0} is no name of a tenant or a plugin")]
    Name(String),
    /// The tenant has no such plugin.
    #[error("tenant {tenant} has no plugin {name}")]
    NoPlugin {
        /// The tenant.
        tenant: String,
        /// The plugin.
        name: String,
    },
    /// The host is set up without global plugins.
    #[error("there is no folder of global plugins")]
    NoGlobal,
    /// The tenant's folder leads elsewhere.
    #[error("{0} is a link, or is below one, and is left alone")]
    Link(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl PluginFiles {
    /// The files of a plugin, which need not be there; of the operator's with [`GLOBAL`] for a tenant.
    pub fn new(folders: &PluginFolders, tenant: &str, name: &str) -> Result<Self, ControlError> {
        let key = key(tenant, name).map_err(|_| {
            let part = if tenant == GLOBAL || crate::folder::is_name(tenant) {
                name
            } else {
                tenant
            };
            ControlError::Name(crate::text::printable(part, 128))
        })?;
        Ok(Self {
            folder: folders.of(tenant).ok_or(ControlError::NoGlobal)?,
            folders: folders.clone(),
            key,
        })
    }

    /// The version in `NAME.wasm`, if there is one.
    pub fn version(&self) -> Result<Option<Digest>, ControlError> {
        self.digest(COMPONENT)
    }

    /// The version in `NAME.pinned`, if there is one.
    pub fn pinned(&self) -> Result<Option<Digest>, ControlError> {
        self.digest(PINNED)
    }

    /// Make this component the plugin, in place of the one that is there.
    pub fn replace(&self, component: &[u8]) -> Result<PathBuf, ControlError> {
        self.write(COMPONENT, component)
    }

    /// Let this component serve until it is unpinned, whatever becomes of `NAME.wasm`.
    pub fn pin(&self, component: &[u8]) -> Result<PathBuf, ControlError> {
        self.must_exist()?;
        self.write(PINNED, component)
    }

    /// Let `NAME.wasm` serve again. Says whether anything was pinned.
    pub fn unpin(&self) -> Result<bool, ControlError> {
        let path = self.path(PINNED);
        match self.true_folder().map(|()| fs::remove_file(&path)) {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Ok(Err(error)) => Err(ControlError::Io { path, error }),
            Err(error) => Err(error),
        }
    }

    /// Let the version in `NAME.wasm` serve as long as it is this one: without being tried out, and
    /// though it may have been rolled back.
    pub fn promote(&self, digest: Digest) -> Result<PathBuf, ControlError> {
        self.must_exist()?;
        self.write(PROMOTED, format!("{digest}\n").as_bytes())
    }

    fn must_exist(&self) -> Result<(), ControlError> {
        if self.path(COMPONENT).is_file() {
            return Ok(());
        }
        Err(ControlError::NoPlugin {
            tenant: self.key.tenant.to_string(),
            name: self.key.name.to_string(),
        })
    }

    fn digest(&self, end: &str) -> Result<Option<Digest>, ControlError> {
        let path = self.path(end);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Digest::of(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ControlError::Io { path, error }),
        }
    }

    /// Write a file whole, or not at all.
    fn write(&self, end: &str, bytes: &[u8]) -> Result<PathBuf, ControlError> {
        self.true_folder()?;
        let path = self.path(end);
        // Its end is none that a host looks for.
        let draft = self
            .folder
            .join(format!(".{}.{}-draft", self.key.name, std::process::id()));
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&draft)?;
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(MODE))?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        match written {
            Ok(()) => Ok(path),
            Err(error) => Err(ControlError::Io { path, error }),
        }
    }

    /// See that the folder is where its path says: who owns a tenant's folder must not choose where an
    /// operator writes.
    fn true_folder(&self) -> Result<(), ControlError> {
        let io = |error| ControlError::Io {
            path: self.folder.clone(),
            error,
        };
        let found = self.folder.canonicalize().map_err(io)?;
        if found == self.folders.true_folder(&self.key.tenant).map_err(io)? {
            Ok(())
        } else {
            Err(ControlError::Link(self.folder.clone()))
        }
    }

    fn path(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", self.key.name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_written_beside_the_plugin_and_nowhere_else() {
        let tenants = tempfile::tempdir().unwrap();
        let folders = PluginFolders {
            tenants: tenants.path().to_owned(),
            global: None,
        };
        let files = PluginFiles::new(&folders, "acme", "10-redact").unwrap();
        let folder = tenants.path().join("acme/plugins");
        assert!(matches!(
            files.pin(b"old"),
            Err(ControlError::NoPlugin { .. })
        ));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("10-redact.wasm"), b"new").unwrap();
        files.pin(b"old").unwrap();
        assert_eq!(files.pinned().unwrap(), Some(Digest::of(b"old")));
        assert_eq!(files.version().unwrap(), Some(Digest::of(b"new")));
        assert!(files.unpin().unwrap());
        assert!(!files.unpin().unwrap());
        files.replace(b"older").unwrap();
        assert_eq!(files.version().unwrap(), Some(Digest::of(b"older")));
        files.promote(Digest::of(b"older")).unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["10-redact.promoted", "10-redact.wasm"]);

        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(tenants.path().join("evil")).unwrap();
        symlink(outside.path(), tenants.path().join("evil/plugins")).unwrap();
        let files = PluginFiles::new(&folders, "evil", "x").unwrap();
        assert!(matches!(files.replace(b"new"), Err(ControlError::Link(_))));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(PluginFiles::new(&folders, "../acme", "x").is_err());
    }
}
