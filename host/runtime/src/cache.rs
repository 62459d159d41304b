//! Compiled code on disk, so that a restart does not compile again.
//!
//! Whoever can write an entry decides what the host runs, so the folder must belong to the host's
//! user and be closed to others. A checksum in front of each entry finds truncation and decay, which
//! is all it can find.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::RuntimeError;
use crate::types::Digest;

const EXTENSION: &str = "compiled";
const CHECKSUM: usize = 32;

/// A folder of compiled components, for one engine.
pub(crate) struct Cache {
    folder: PathBuf,
    /// Which compiler and settings the code is for.
    compatibility: String,
    most_bytes: u64,
    temporaries: AtomicU64,
}

impl Cache {
    /// Open the folder, making it if it is missing.
    pub(crate) fn open(
        folder: &Path,
        most_bytes: u64,
        engine: &Engine,
    ) -> Result<Self, RuntimeError> {
        let refuse = |reason: String| RuntimeError::Cache {
            path: folder.to_owned(),
            reason,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| refuse(error.to_string()))?;
        let metadata = fs::metadata(folder).map_err(|error| refuse(error.to_string()))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(refuse("the folder belongs to another user".to_owned()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(refuse(
                "the folder is open to other users; make its mode 0700".to_owned(),
            ));
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compatibility = hex::encode(&hasher.0.finalize()[..8]);
        Ok(Self {
            folder: folder.to_owned(),
            compatibility,
            most_bytes,
            temporaries: AtomicU64::new(0),
        })
    }

    /// The compiled form of a component, if it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        let (checksum, code) = bytes.split_at_checked(CHECKSUM)?;
        if Sha256::digest(code).as_slice() != checksum {
            tracing::warn!(%digest, "a compiled plugin in the cache is damaged; compiling it again");
            return None;
        }
        // SAFETY: `code` came from `Component::serialize` in `store`, below: nothing else writes to
        // the folder, which belongs to this user and is closed to others (checked in `open`), the
        // checksum says that it is what was written, and its name says that a compatible engine wrote
        // it, which wasmtime checks once more.
        #[allow(unsafe_code, reason = "loading compiled code is unsafe by nature")]
        let component = unsafe { Component::deserialize(engine, code) };
        if let Ok(file) = File::open(&path) {
            // What was used last goes last. Nothing is lost if the time cannot be set.
            let _ = file.set_modified(SystemTime::now());
        }
        component.ok()
    }

    /// Keep the compiled form of a component. Failing to is no failure: it is compiled again.
    pub(crate) fn store(&self, digest: Digest, component: &Component) {
        if let Err(error) = self.try_store(digest, component) {
            tracing::warn!(%digest, error, "a compiled plugin cannot be kept in the cache");
        }
    }

    fn try_store(&self, digest: Digest, component: &Component) -> Result<(), String> {
        let code = component.serialize().map_err(|error| error.to_string())?;
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .folder
            .join(format!("{}-{number}.tmp", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&Sha256::digest(&code))?;
                file.write_all(&code)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, self.path(digest)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error.to_string());
        }
        self.evict();
        Ok(())
    }

    /// Remove what was used least recently until the rest fits.
    fn evict(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .filter(|(_, _, path)| path.extension().is_some_and(|end| end == EXTENSION))
            .collect();
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in entries {
            if total <= self.most_bytes {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder
            .join(format!("{digest}-{}.{EXTENSION}", self.compatibility))
    }
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
