//! Compiled code on disk, so that a restart does not compile again, and mapped from there, so that it
//! is read as far as it is run.
//!
//! Whoever can write an entry decides what the host runs, so the folder must belong to the host's
//! user and be closed to others. An entry is written under another name and renamed, is never changed
//! after that, and is checked before it is used; one that is not as it was written is made again.

mod functions;
mod refusals;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::code_id::CodeId;
use crate::error::{LoadError, RuntimeError};
use crate::own_folder::{NotOwn, OwnFolder};
use crate::{adapt, artifact};

const EXTENSION: &str = "compiled";
/// The end of the names of what is being written.
const DRAFT: &str = "draft";
/// A draft of this age was left behind by a process that ended: compiling does not take so long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled components, for one engine.
pub(crate) struct Cache {
    folder: OwnFolder,
    /// Which compiler and settings the code is for.
    compatibility: String,
    most_bytes: u64,
    /// Bytes of all entries, as far as this process knows.
    held: AtomicU64,
    /// Whether it was said that what serves does not fit.
    is_short: AtomicBool,
    drafts: AtomicU64,
}

/// A file that is being written.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
}

/// Why an entry that is there cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    /// It is not as it was written, or for another engine.
    #[error("{0}")]
    Unfit(String),
    /// The process has no room for it: too many open files, or too little memory.
    #[error("{0}")]
    Exhausted(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) if is_exhaustion(errno) => Self::Exhausted(error),
            _ => Self::Unfit(error.to_string()),
        }
    }
}

/// Each entry that is mapped takes an open file and a few of the mappings that a process may have.
fn is_exhaustion(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

impl Cache {
    /// Open the folder, making it if it is missing; with none, one of its own for as long as it lives.
    pub(crate) fn open(
        folder: Option<&Path>,
        most_bytes: u64,
        engine: &Engine,
    ) -> Result<Self, RuntimeError> {
        let folder = OwnFolder::open(folder, "wasmhook-cache-")
            .map_err(|NotOwn { path, reason }| RuntimeError::Cache { path, reason })?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(adapt::ADAPTER);
        let cache = Self {
            folder,
            compatibility: hex::encode(&hasher.0.finalize()[..8]),
            most_bytes,
            held: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            drafts: AtomicU64::new(0),
        };
        cache.remove_abandoned();
        cache.make_room(HashSet::new);
        Ok(cache)
    }

    /// The compiled form of a component, if it is there, whole and of use. If it is there and is not,
    /// it is removed. Fails when the machine has no room for it now, which says nothing about it.
    pub(crate) fn load(&self, engine: &Engine, id: CodeId) -> io::Result<Option<Component>> {
        match self.read(engine, id) {
            Ok(component) => Ok(component),
            Err(Unreadable::Exhausted(error)) => Err(error),
            Err(Unreadable::Unfit(reason)) => {
                tracing::warn!(digest = %id.digest, "a compiled plugin in the cache is made again: {reason}");
                // Whoever has it mapped keeps it; the next one is a new file.
                let _ = fs::remove_file(self.path(id));
                Ok(None)
            }
        }
    }

    /// The compiled form of a component that was kept a moment ago.
    pub(crate) fn take_up(&self, engine: &Engine, id: CodeId) -> Result<Component, String> {
        self.read(engine, id)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "it is gone from the cache".to_owned())
    }

    fn read(&self, engine: &Engine, id: CodeId) -> Result<Option<Component>, Unreadable> {
        let path = self.path(id);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !artifact::is_whole(&file)? {
            return Err(Unreadable::Unfit("it is damaged".to_owned()));
        }
        let component = map(engine, &path).map_err(|error| {
            let opening = || Errno::from_io_error(error.downcast_ref::<io::Error>()?);
            match error.downcast_ref::<Errno>().copied().or_else(opening) {
                Some(errno) if is_exhaustion(errno) => Unreadable::Exhausted(errno.into()),
                _ => Unreadable::Unfit(format!("{error:#}")),
            }
        })?;
        // What was used last goes last. Nothing is lost if the time cannot be set.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(component))
    }

    /// What is said of compiled code that could not be kept.
    pub(crate) fn unkept(&self, reason: String) -> LoadError {
        let folder = self.folder.path().to_owned();
        LoadError::Unkept { folder, reason }
    }

    /// A file to write compiled code to.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}.{DRAFT}", std::process::id());
        let path = self.folder.path().join(name);
        // Left behind by a process with the same id; this one counts its own.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Draft { file, path })
    }

    /// Make what was written the entry of a component.
    pub(crate) fn keep(&self, draft: &Draft, id: CodeId) -> io::Result<()> {
        let bytes = draft.file.metadata()?.len();
        // It is mapped from now on; what would change it in place has to go out of its way.
        draft.file.set_permissions(Permissions::from_mode(0o400))?;
        self.put_in_place(draft, &self.path(id), bytes)
    }

    /// Give a draft of so many bytes the name of an entry.
    fn put_in_place(&self, draft: &Draft, path: &Path, bytes: u64) -> io::Result<()> {
        // The name need not be on the disk: after a power cut the entry is there, or it is made again.
        fs::rename(&draft.path, path)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Remove what was used least recently, if there is more than there may be: first of what does not
    /// serve. What is removed goes on serving where it does, and is compiled again at the next start.
    pub(crate) fn make_room(&self, serving: impl FnOnce() -> HashSet<CodeId>) {
        let held = self.held.load(Ordering::Relaxed);
        if held != 0 && held <= self.most_bytes {
            return;
        }
        let Ok(entries) = fs::read_dir(self.folder.path()) else {
            return;
        };
        let serving: HashSet<PathBuf> = serving().into_iter().map(|id| self.path(id)).collect();
        let mut entries: Vec<(bool, SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let (path, metadata) = (entry.path(), entry.metadata().ok()?);
                let serves = serving.contains(&path);
                Some((serves, metadata.modified().ok()?, metadata.len(), path))
            })
            .filter(|(.., path)| {
                let end = path.extension().and_then(OsStr::to_str);
                matches!(end, Some(EXTENSION | functions::EXTENSION))
            })
            .collect();
        entries.sort();
        let mut held: u64 = entries.iter().map(|(_, _, bytes, _)| bytes).sum();
        if held > self.most_bytes {
            // A tenth more, so that a full cache is not looked through at every turn.
            let wanted = self.most_bytes - self.most_bytes / 10;
            for (serves, _, bytes, path) in entries {
                if held <= wanted {
                    break;
                }
                if fs::remove_file(path).is_ok() {
                    held -= bytes;
                    if serves && !self.is_short.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            cache_bytes = self.most_bytes,
                            "the cache of compiled plugins is smaller than the plugins that serve, so some are compiled again at every start; raise plugins.cache_bytes"
                        );
                    }
                }
            }
        }
        self.held.store(held, Ordering::Relaxed);
    }

    fn remove_abandoned(&self) {
        let entries = fs::read_dir(self.folder.path())
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let path = entry.path();
            if path.extension().is_none_or(|end| end != DRAFT) {
                continue;
            }
            let is_old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED));
            if is_old {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn path(&self, CodeId { digest, owner }: CodeId) -> PathBuf {
        let compatibility = &self.compatibility;
        let name = match owner {
            None => format!("{digest}-{compatibility}.{EXTENSION}"),
            Some(owner) => format!("{digest}-{compatibility}-{owner}.{EXTENSION}"),
        };
        self.folder.path().join(name)
    }
}

impl Draft {
    /// The file, for whoever writes it.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has another name if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

/// Map compiled code that was found whole.
#[allow(unsafe_code, reason = "loading compiled code is unsafe by nature")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: what the file holds came from `Engine::precompile_component`, in this process or in a
    // child of it: nothing else writes to the folder, which belongs to this user and is closed to
    // others (see `OwnFolder`); the checksum says that it is as it was written, and its name says that a
    // compatible engine wrote it, which wasmtime checks once more. It is not changed while it is
    // mapped: entries are replaced by renaming and removed, never written to.
    unsafe { Component::deserialize_file(engine, path) }.or_else(|error| {
        // A file system that is mounted for data only maps nothing to run.
        let bytes = fs::read(path).map_err(|_| error)?;
        // SAFETY: as above.
        unsafe { Component::deserialize(engine, bytes) }
    })
}

/// Lets SHA-256 stand where the standard library's traits want a hasher: the same in every build.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
