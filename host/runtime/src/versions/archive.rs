//! Which versions of plugins are kept, for how long, and what became of them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::files::{ArchiveError, Files, Kept};
use super::history::{History, VersionRecord, VersionState};
use super::room;
use crate::error::RuntimeError;
use crate::folder::{GLOBAL, Key, is_name};
use crate::own_folder::{NotOwn, OwnFolder};
use crate::types::Digest;

/// The bytes held before anybody has counted them: more than there may be, so that somebody does.
const UNKNOWN: u64 = u64::MAX / 2;

/// The versions that plugins had, for as long as they are kept.
pub struct VersionArchive {
    files: Files,
    /// Components kept of each plugin.
    versions: usize,
    /// Bytes of all of them.
    most_bytes: u64,
    /// Bytes held, as far as this process knows.
    held: AtomicU64,
    /// Whether this process is the one that the folder belongs to.
    writes: bool,
    plugins: Mutex<HashMap<Key, Plugin>>,
    /// Held while a history is written, so that the newest is what stays.
    writing: Mutex<()>,
}

/// What is known of a plugin.
#[derive(Default)]
struct Plugin {
    history: History,
    /// The version kept last, which may have no history yet.
    latest: Option<Digest>,
    /// Hash of the history as it is on disk.
    written: Option<u64>,
}

impl Plugin {
    /// Whether a version, by the name of its files, is one of so many that are kept.
    fn needs(&self, stem: &OsStr, versions: usize) -> bool {
        let records = self.history.records().iter().rev();
        records
            .filter(|record| record.state != VersionState::Refused)
            .map(|record| record.digest)
            .take(versions)
            .chain(self.latest)
            .any(|digest| stem == digest.to_string().as_str())
    }
}

impl VersionArchive {
    /// Open the folder, making it if it is missing; with none, one of its own for as long as it lives.
    pub(crate) fn open(
        folder: Option<&Path>,
        versions: usize,
        most_bytes: u64,
        writes: bool,
    ) -> Result<Self, RuntimeError> {
        let open = if writes {
            OwnFolder::open
        } else {
            OwnFolder::look
        };
        let folder = open(folder, "wasmhook-versions-")
            .map_err(|NotOwn { path, reason }| RuntimeError::Archive { path, reason })?;
        Ok(Self {
            files: Files::of(folder),
            versions: versions.max(1),
            most_bytes,
            held: AtomicU64::new(UNKNOWN),
            writes,
            plugins: Mutex::default(),
            writing: Mutex::default(),
        })
    }

    /// Look into the folder of a host, which goes on using it.
    pub fn look(folder: &Path) -> Self {
        Self {
            files: Files::of(OwnFolder::unclaimed(folder)),
            versions: usize::MAX,
            most_bytes: u64::MAX,
            held: AtomicU64::new(UNKNOWN),
            writes: false,
            plugins: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// What became of each version of a plugin, oldest change first, and whether its bytes are kept.
    pub fn versions(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Vec<(VersionRecord, bool)>, ArchiveError> {
        let key = key(tenant, name)?;
        self.recall(&key);
        let records = self.with(&key, |history| history.records().to_vec());
        Ok(records
            .into_iter()
            .map(|record| {
                let kept = self.files.component(&key, record.digest).is_file();
                (record, kept)
            })
            .collect())
    }

    /// The bytes of a version.
    pub fn get(&self, tenant: &str, name: &str, digest: Digest) -> Result<Kept, ArchiveError> {
        self.files.read(&key(tenant, name)?, digest)
    }

    /// Remove all versions that a tenant's plugins had, with their histories, and tell how many components
    /// that were and how large. For a tenant that is gone: a host that still serves its plugins writes down
    /// again what it knows.
    pub fn forget(&self, tenant: &str) -> Result<(u64, u64), ArchiveError> {
        // Any name will do for the plugin: it is the tenant's that is judged.
        let folder = self.files.tenant(&key(tenant, "any")?);
        let forgotten = room::held(&folder);
        self.plugins().retain(|key, _| *key.tenant != *tenant);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(forgotten),
        }
    }

    pub(crate) fn read(&self, key: &Key, digest: Digest) -> Result<Kept, ArchiveError> {
        self.files.read(key, digest)
    }

    /// Read the history of a plugin, if that has not been done.
    pub(crate) fn recall(&self, key: &Key) {
        if self.plugins().contains_key(key) {
            return;
        }
        let read = self.files.read_history(key).unwrap_or_else(|reason| {
            tracing::warn!(tenant = %key.tenant, plugin = %key.name,
                "the history of a plugin begins anew, because it cannot be read: {reason}");
            None
        });
        let (history, written) = read.unzip();
        self.plugins().entry(key.clone()).or_insert(Plugin {
            history: history.unwrap_or_default(),
            latest: None,
            written,
        });
    }

    /// Look at the history of a plugin, or change it, in memory.
    pub(crate) fn with<T>(&self, key: &Key, look: impl FnOnce(&mut History) -> T) -> T {
        self.recall(key);
        let mut plugins = self.plugins();
        if let Some(plugin) = plugins.get_mut(key) {
            return look(&mut plugin.history);
        }
        look(&mut plugins.entry(key.clone()).or_default().history)
    }

    /// Keep the bytes of a version that is about to serve, with the manifest that it will serve with.
    pub(crate) fn keep(
        &self,
        key: &Key,
        digest: Digest,
        component: &[u8],
        manifest: Option<&[u8]>,
    ) -> io::Result<()> {
        if !self.writes {
            return Ok(());
        }
        self.recall(key);
        self.plugins().entry(key.clone()).or_default().latest = Some(digest);
        let path = self.files.component(key, digest);
        let whole = component.len() as u64;
        if fs::metadata(&path).map_or(true, |found| found.len() != whole) {
            self.files.make(key)?;
            self.files.write(&path, component)?;
            self.held.fetch_add(whole, Ordering::Relaxed);
            self.make_room();
        }
        let path = self.files.manifest(key, digest);
        match manifest {
            Some(bytes) if fs::read(&path).is_ok_and(|found| found == *bytes) => Ok(()),
            Some(bytes) => self.files.write(&path, bytes),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Remove what was kept longest ago, if there is more than there may be: nothing that a plugin needs now.
    fn make_room(&self) {
        if self.held.load(Ordering::Relaxed) <= self.most_bytes {
            return;
        }
        let is_spared = |key: &Key, digest: Digest| {
            let plugins = self.plugins();
            plugins.get(key).is_some_and(|plugin| {
                let state = plugin.history.of(digest).map(|record| record.state);
                plugin.latest == Some(digest) || state.is_some_and(VersionState::is_in_use)
            })
        };
        let held = room::make(self.files.path(), self.most_bytes, is_spared);
        self.held.store(held, Ordering::Relaxed);
    }

    /// Write down the history of a plugin, and remove the versions that are too many.
    pub(crate) fn persist(&self, key: &Key) {
        if !self.writes {
            return;
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let history = self.with(key, |history| history.clone());
        let text = match serde_json::to_vec_pretty(&history) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(tenant = %key.tenant, plugin = %key.name,
                    "the history of a plugin has no form on disk: {error}");
                return;
            }
        };
        let hash = xxh3_64(&text);
        let known = self.plugins().get(key).and_then(|plugin| plugin.written);
        if known == Some(hash) || (known.is_none() && history.records().is_empty()) {
            return;
        }
        match self.files.write_history(key, &text) {
            Ok(()) => {
                if let Some(plugin) = self.plugins().get_mut(key) {
                    plugin.written = Some(hash);
                }
            }
            Err(error) => tracing::warn!(tenant = %key.tenant, plugin = %key.name,
                "the history of a plugin cannot be written: {error}"),
        }
        self.prune(key);
    }

    /// Forget what is in memory of a plugin that is gone, after writing it down; unless it has come back
    /// meanwhile and there is more to write.
    pub(crate) fn put_away(&self, key: &Key) {
        self.persist(key);
        let mut plugins = self.plugins();
        let is_written = |plugin: &Plugin| {
            let text = serde_json::to_vec_pretty(&plugin.history);
            text.is_ok_and(|text| plugin.written == Some(xxh3_64(&text)))
        };
        if plugins.get(key).is_some_and(is_written) {
            plugins.remove(key);
        }
    }

    /// Remove what is past the bound, what changed longest ago first, and what was refused.
    fn prune(&self, key: &Key) {
        let entries = fs::read_dir(self.files.plugin(key)).into_iter().flatten();
        for entry in entries.flatten() {
            let path = entry.path();
            let is_version = path
                .extension()
                .is_some_and(|end| end == "wasm" || end == "toml");
            let Some(stem) = path.file_stem().filter(|_| is_version) else {
                continue;
            };
            // Asked for each file, and removed under the lock: a version that comes to be kept meanwhile is
            // made known first, and its files are looked for afterwards.
            let plugins = self.plugins();
            let Some(plugin) = plugins.get(key) else {
                return;
            };
            if !plugin.needs(stem, self.versions) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn plugins(&self) -> MutexGuard<'_, HashMap<Key, Plugin>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn key(tenant: &str, name: &str) -> Result<Key, ArchiveError> {
    for (part, is_fit) in [
        (tenant, tenant == GLOBAL || is_name(tenant)),
        (name, is_name(name)),
    ] {
        if !is_fit {
            return Err(ArchiveError::Name(crate::text::printable(part, 128)));
        }
    }
    Ok(Key {
        tenant: tenant.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::loader::Version;
    use crate::versions::Calls;

    fn kept(component: &[u8], manifest: Option<&str>) -> Kept {
        Kept {
            component: component.to_vec(),
            manifest: manifest.map(|text| text.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_version_that_is_being_kept_outlasts_the_writing_of_the_history() {
        let archive = VersionArchive::open(None, 2, u64::MAX, true).unwrap();
        let key = key("acme", "10-redact").unwrap();
        drop_version(&archive, &key, b"serves");
        for n in 1..=20_u32 {
            let content = n.to_le_bytes();
            let digest = Digest::of(&content);
            // It was kept before, and is one of many that are to go just when it comes back.
            let old = (0..100).map(|old| archive.files.plugin(&key).join(format!("{old}.wasm")));
            for path in old.chain([archive.files.component(&key, digest)]) {
                fs::write(path, content).unwrap();
            }
            // What makes a look write the history down before it loads what it found.
            let served = Calls {
                calls: n.into(),
                faults: 0,
            };
            archive.with(&key, |history| {
                history.counted(Digest::of(b"serves"), served);
            });
            std::thread::scope(|threads| {
                threads.spawn(|| archive.persist(&key));
                let is_there = |path: PathBuf| path.exists();
                let begun = Instant::now();
                while (0..100)
                    .all(|old| is_there(archive.files.plugin(&key).join(format!("{old}.wasm"))))
                    && begun.elapsed() < Duration::from_secs(1)
                {
                    std::hint::spin_loop();
                }
                archive.keep(&key, digest, &content, None).unwrap();
            });
            let kept = archive.read(&key, digest);
            assert!(kept.is_ok(), "version {n}: {kept:?}");
        }
    }

    fn drop_version(archive: &VersionArchive, key: &Key, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        archive.recall(key);
        archive.keep(key, digest, content, None).unwrap();
        archive.with(key, |history| {
            history.takes_over(Version::plain(digest, None));
        });
        archive.persist(key);
        digest
    }

    #[test]
    fn a_tenant_that_is_forgotten_has_no_versions_and_no_history() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let archive = VersionArchive::open(Some(folder.path()), 5, 1 << 20, true).unwrap();
        let of = |tenant: &str, name: &str| super::key(tenant, name).unwrap();
        let (one, two, other) = (of("acme", "10-a"), of("acme", "20-b"), of("acme2", "10-a"));
        for (key, content) in [(&one, &b"first"[..]), (&one, b"second"), (&two, b"third")] {
            drop_version(&archive, key, content);
            archive.persist(key);
        }
        let kept = drop_version(&archive, &other, b"first");
        archive.persist(&other);
        assert_eq!(archive.forget("acme").unwrap(), (3, 16));
        let look = VersionArchive::look(folder.path());
        assert!(look.versions("acme", "10-a").unwrap().is_empty());
        assert!(archive.versions("acme", "20-b").unwrap().is_empty());
        assert!(look.get("acme2", "10-a", kept).is_ok());
        assert_eq!(archive.forget("acme").unwrap(), (0, 0), "again");
        assert!(archive.forget("..").is_err() && archive.forget("a/b").is_err());
    }

    #[test]
    fn the_last_versions_and_their_history_survive_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("acme", "10-redact").unwrap();
        let archive =
            VersionArchive::open(Some(&folder.path().join("v")), 2, 1 << 20, true).unwrap();
        let digests: Vec<Digest> = (0_u8..4)
            .map(|n| drop_version(&archive, &key, &[n]))
            .collect();

        let again = VersionArchive::look(&folder.path().join("v"));
        let versions = again.versions("acme", "10-redact").unwrap();
        let told: Vec<(Digest, bool)> = versions
            .iter()
            .map(|(record, is_kept)| (record.digest, *is_kept))
            .collect();
        assert_eq!(
            told,
            [
                (digests[0], false),
                (digests[1], false),
                (digests[2], true),
                (digests[3], true)
            ]
        );
        assert_eq!(
            again.get("acme", "10-redact", digests[3]).unwrap(),
            kept(&[3], None)
        );
        let gone = again.get("acme", "10-redact", digests[0]).unwrap_err();
        assert!(gone.to_string().contains("does not keep version"), "{gone}");
        assert!(again.versions("acme", "other").unwrap().is_empty());
        assert!(again.versions("..", "other").is_err());
    }

    #[test]
    fn what_was_kept_longest_ago_goes_when_there_is_too_much_but_not_what_serves() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("v");
        let archive = VersionArchive::open(Some(&folder), 5, 10, true).unwrap();
        let (quiet, busy) = (key("quiet", "a").unwrap(), key("busy", "a").unwrap());
        let serves = drop_version(&archive, &quiet, b"aaaa");
        let mut dropped = Vec::new();
        for content in [b"bbbb", b"cccc", b"dddd", b"eeee"] {
            dropped.push(drop_version(&archive, &busy, content));
            // Two in the same tick of the file system's clock have no order.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let is_kept = |key: &Key, digest: &Digest| archive.read(key, *digest).is_ok();
        assert!(is_kept(&quiet, &serves), "it is the oldest, and serves");
        let left: Vec<bool> = dropped
            .iter()
            .map(|digest| is_kept(&busy, digest))
            .collect();
        assert_eq!(
            left,
            [false, false, true, true],
            "what served when the last one came is spared, too"
        );
        let told = archive.versions("busy", "a").unwrap();
        assert_eq!(told.len(), 4, "their story stays");
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("acme", "10-redact").unwrap();
        let folder = folder.path().join("v");
        let archive = VersionArchive::open(Some(&folder), 5, 1 << 20, true).unwrap();
        let digest = drop_version(&archive, &key, b"whole");
        let file = folder.join(format!("acme/10-redact/{digest}.wasm"));
        fs::write(&file, b"torn!").unwrap();
        assert!(matches!(
            archive.read(&key, digest),
            Err(ArchiveError::Damaged(_))
        ));
        fs::write(folder.join("acme/10-redact/history.json"), b"[{").unwrap();
        let again = VersionArchive::look(&folder);
        assert!(again.versions("acme", "10-redact").unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(VersionArchive::open(Some(folder.path()), 5, 1 << 20, true).is_err());
    }
}
