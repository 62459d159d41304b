//! The data folder: made when missing, and held by one host at a time.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::schema;
use crate::error::StoreError;

/// The file of the database in the data folder.
pub const DATABASE: &str = "wasmhook.db";
const LOCK: &str = "wasmhook.lock";

/// The folder, and the lock on it while a host has it.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) database: PathBuf,
    lock: Option<File>,
}

impl Folder {
    /// Makes the folder if it is missing and takes its lock.
    pub(super) fn for_host(path: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(path).map_err(|error| {
            unusable(
                path,
                format!("the folder cannot be made: {}", words(&error)),
            )
        })?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .map_err(|error| {
                unusable(
                    path,
                    format!("no file can be written there: {}", words(&error)),
                )
            })?;
        match file.try_lock() {
            Ok(()) => {
                let database = path.join(DATABASE);
                make(&database)?;
                Ok(Self {
                    database,
                    lock: Some(file),
                })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(unusable(
                path,
                format!("the folder cannot be locked: {}", words(&error)),
            )),
        }
    }

    /// Finds the database that a host has made.
    pub(super) fn for_tools(path: &Path) -> Result<Self, StoreError> {
        let database = path.join(DATABASE);
        match database.metadata() {
            Ok(metadata) => {
                not_emptied(&database, &metadata)?;
                Ok(Self {
                    database,
                    lock: None,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unusable(
                path,
                format!("there is no {DATABASE} in it; a host makes it when it first starts"),
            )),
            Err(error) => Err(unusable(path, words(&error))),
        }
    }

    /// Whether it is held for a host.
    pub(super) fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether a host in another process holds it.
    pub(super) fn is_anothers(&self) -> Result<bool, StoreError> {
        if self.is_held() {
            return Ok(false);
        }
        let path = self.database.with_file_name(LOCK);
        let held = File::open(&path).and_then(|file| match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match held {
            Ok(held) => Ok(held),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unusable(
                &path,
                format!("the lock cannot be looked at: {}", words(&error)),
            )),
        }
    }
}

/// Makes a database without tables for this user alone, if there is none, for it will hold payloads. `SQLite` gives the
/// files that it makes beside it the same mode.
///
/// It gets its name when it has its first page, so one without any was never a store's beginning: it lost all that was
/// in it, and `SQLite` would begin anew and remove its log, in which some of that may be left.
fn make(database: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| {
        let reason = format!("{DATABASE} cannot be made: {}", words(&error));
        unusable(database.parent().unwrap_or(database), reason)
    };
    match database.metadata() {
        Ok(metadata) => return not_emptied(database, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let beside = |end: &str| database.with_file_name(format!("{DATABASE}{end}"));
    let log = beside("-wal");
    if log.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        let reason = format!(
            "it holds what belongs to a {DATABASE} that is gone; put that back, or remove this file to begin with \
             nothing"
        );
        return Err(unusable(&log, reason));
    }
    for end in ["-wal", "-shm", ".new", ".new-wal", ".new-shm"] {
        match std::fs::remove_file(beside(end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let draft = beside(".new");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&draft).map_err(failed)?;
    schema::begin(&draft)?;
    std::fs::rename(&draft, database).map_err(failed)
}

fn not_emptied(database: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    if metadata.len() > 0 {
        return Ok(());
    }
    let reason = "it is empty, which no store's file is, so what was in it is lost; put a backup in its place, or \
                  remove it and what is named after it to begin with nothing";
    Err(unusable(database, reason))
}

pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Path {
        path: path.display().to_string(),
        reason: reason.into(),
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is a file, not a folder".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}
