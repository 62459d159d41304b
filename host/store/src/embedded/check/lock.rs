//! One repair at a time: a lock on a file beside the database.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::embedded::thread;
use crate::error::StoreError;

/// Beside the database; whoever repairs holds a lock on it.
const LOCK: &str = "wasmhook.repair";

/// Held by who repairs, until it is dropped.
pub(super) struct RepairLock(File);

impl RepairLock {
    /// Takes it, if nobody has it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = database.with_file_name(LOCK);
        let cannot = |reason: String| StoreError::Path {
            path: path.display().to_string(),
            reason,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| cannot(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(thread::unavailable(
                "another repair is under way; try again when it has ended".to_owned(),
            )),
            Err(TryLockError::Error(error)) => Err(cannot(error.to_string())),
        }
    }
}

impl Drop for RepairLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started may have the file open too. And
        // if this fails, the end of the process does it.
        let _ = self.0.unlock();
    }
}
