//! The bytes and the history of the versions that served, in a folder of the host's own:
//! `TENANT/NAME/DIGEST.wasm`, the manifest it last served with beside it, and `history.json`.
//!
//! Each file is written under another name and renamed. Nothing waits for the disk: a component is
//! checked against its digest when it is read, and a history that cannot be read begins anew.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::history::History;
use crate::folder::Key;
use crate::own_folder::OwnFolder;
use crate::types::Digest;

const HISTORY: &str = "history.json";
/// The most bytes of a history: many times what thirty records take.
const HISTORY_BYTES: u64 = 1 << 20;

/// A version as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The component's file.
    pub component: Vec<u8>,
    /// The manifest that it last served with.
    pub manifest: Option<Vec<u8>>,
}

/// Why a version cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The tenant or the plugin has a name that no folder has.
    #[error("{0} is no name of a tenant or a plugin")]
    Name(String),
    /// It is not there.
    #[error("this host does not keep version {0} of the plugin")]
    NotKept(Digest),
    /// It is not what it was when it was written.
    #[error("the kept version {0} is damaged")]
    Damaged(Digest),
    /// The folder cannot be read or written.
    #[error("the archive of versions cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// The folder, and where in it things are.
pub(super) struct Files {
    folder: OwnFolder,
    /// How many files were begun, for the names of the next.
    drafts: AtomicU64,
}

impl Files {
    pub(super) fn of(folder: OwnFolder) -> Self {
        Self {
            folder,
            drafts: AtomicU64::new(0),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn tenant(&self, key: &Key) -> PathBuf {
        self.folder.path().join(&*key.tenant)
    }

    /// The bytes of a version.
    pub(super) fn read(&self, key: &Key, digest: Digest) -> Result<Kept, ArchiveError> {
        let component = match fs::read(self.component(key, digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArchiveError::NotKept(digest));
            }
            read => read?,
        };
        if Digest::of(&component) != digest {
            return Err(ArchiveError::Damaged(digest));
        }
        let manifest = match fs::read(self.manifest(key, digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read?),
        };
        Ok(Kept {
            component,
            manifest,
        })
    }

    /// Writes a file under another name and renames it.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_extension(format!("{}-{number}.draft", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    pub(super) fn plugin(&self, key: &Key) -> PathBuf {
        self.tenant(key).join(&*key.name)
    }

    pub(super) fn component(&self, key: &Key, digest: Digest) -> PathBuf {
        self.plugin(key).join(format!("{digest}.wasm"))
    }

    pub(super) fn manifest(&self, key: &Key, digest: Digest) -> PathBuf {
        self.plugin(key).join(format!("{digest}.toml"))
    }

    /// Makes a plugin's folder.
    pub(super) fn make(&self, key: &Key) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.plugin(key))
    }

    pub(super) fn write_history(&self, key: &Key, text: &[u8]) -> io::Result<()> {
        self.make(key)?;
        self.write(&self.plugin(key).join(HISTORY), text)
    }

    /// A history with its hash, if there is one.
    pub(super) fn read_history(&self, key: &Key) -> Result<Option<(History, u64)>, String> {
        let path = self.plugin(key).join(HISTORY);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
            Ok(found) if found.len() > HISTORY_BYTES => return Err("it is too large".to_owned()),
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let history = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Ok(Some((history, xxh3_64(&bytes))))
    }
}
