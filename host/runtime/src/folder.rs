//! What lies in the tenants folder: which plugins there are, whether they changed, and their bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use crate::error::LoadError;
use crate::types::Digest;

/// A change within this time of a look could be followed by another that leaves the same time stamp
/// and size, so such a file is read again at the next look.
const SETTLED: Duration = Duration::from_secs(2);
/// Stands where a tenant's name stands for the operator's own plugins; no tenant can have it.
pub const GLOBAL: &str = "@global";
/// How the names of the operator's plugins begin: those that run before a tenant's own, and after.
const BEFORE: &str = "before-";
const AFTER: &str = "after-";
/// Longest name of a tenant or a plugin.
const LONGEST_NAME: usize = 128;

/// A plugin by tenant and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) tenant: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Key {
    /// Whether it is a plugin of the operator.
    pub(crate) fn is_global(&self) -> bool {
        *self.tenant == *GLOBAL
    }

    /// The name as records and errors show it: one that no tenant's plugin can have, if it is the
    /// operator's.
    pub(crate) fn shown(&self) -> Arc<str> {
        if self.is_global() {
            Arc::from(format!("{GLOBAL}/{}", self.name))
        } else {
            Arc::clone(&self.name)
        }
    }
}

/// Whether a plugin of the operator, by the name as it is shown, runs before those of tenants.
pub(crate) fn is_before(shown: &str) -> bool {
    let name = shown
        .strip_prefix(GLOBAL)
        .and_then(|name| name.strip_prefix('/'));
    name.is_some_and(|name| name.starts_with(BEFORE))
}

/// Where plugins lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFolders {
    /// Holds a folder for each tenant.
    pub tenants: PathBuf,
    /// Holds the operator's own plugins, if there are any.
    pub global: Option<PathBuf>,
}

impl PluginFolders {
    /// Where the plugins of a tenant lie, or with [`GLOBAL`] the operator's; those have none if the host is
    /// set up without.
    pub(crate) fn of(&self, tenant: &str) -> Option<PathBuf> {
        if tenant == GLOBAL {
            self.global.clone()
        } else {
            Some(plugins_folder(&self.tenants, tenant))
        }
    }

    /// The same with links in the part above the tenant followed and none below it: a tenant's folder is
    /// not the operator's.
    pub(crate) fn true_folder(&self, tenant: &str) -> io::Result<PathBuf> {
        if tenant == GLOBAL {
            let global = self.global.as_deref().ok_or(io::ErrorKind::NotFound)?;
            global.canonicalize()
        } else {
            Ok(plugins_folder(&self.tenants.canonicalize()?, tenant))
        }
    }

    /// Where the files of a tenant's plugins truly are: somewhere in its folder. That may be a link as a mounted
    /// `ConfigMap` has them, `acme -> ..data/acme`, into a hidden folder beside it and so into no other tenant's.
    fn home(&self, tenant: &str) -> io::Result<PathBuf> {
        if tenant == GLOBAL {
            return self.true_folder(tenant);
        }
        let tenants = self.tenants.canonicalize()?;
        let plain = tenants.join(tenant);
        let found = plain.canonicalize()?;
        let is_hidden = found.strip_prefix(&tenants).is_ok_and(|below| {
            let first = below.as_os_str().as_encoded_bytes();
            first.starts_with(b".")
        });
        if is_hidden || found == plain {
            Ok(found)
        } else {
            let reason = "the tenant's folder is a link that leads elsewhere";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
        }
    }
}

/// Tells whether files changed without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    component: Option<FileStamp>,
    manifest: Option<FileStamp>,
    pinned: Option<FileStamp>,
    promoted: Option<FileStamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether a version is pinned.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// Whether an equal stamp at a later look proves equal content.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        [self.component, self.manifest, self.pinned, self.promoted]
            .iter()
            .flatten()
            .all(|file| file.is_settled(now))
    }
}

impl FileStamp {
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let changed = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or_default();
        now.saturating_sub(Duration::from_secs(changed)) > SETTLED
    }
}

/// What a look into the folder found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) plugins: BTreeMap<Key, Stamp>,
    /// Tenants whose folder could not be read, whose plugins stay as they are.
    pub(crate) unreadable: Vec<Arc<str>>,
    /// Those of them that no look could read before: nobody knows which plugins they have.
    pub(crate) unknown: Vec<Arc<str>>,
    /// What is wrong in the folder itself, in sentences.
    pub(crate) problems: Vec<String>,
}

/// The content of a plugin's files.
pub(crate) struct Content {
    pub(crate) component: Vec<u8>,
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) standing: Standing,
}

/// What somebody said about a version, with a file beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// Nothing.
    #[default]
    Plain,
    /// `NAME.pinned` is there: the component in it serves instead of the one in `NAME.wasm`, whatever
    /// becomes of that.
    Pinned,
    /// `NAME.promoted` holds its digest: it serves, without being watched or tried out.
    Promoted,
}

/// The ends of the names of a plugin's files.
pub(crate) const COMPONENT: &str = "wasm";
pub(crate) const MANIFEST: &str = "toml";
pub(crate) const PINNED: &str = "pinned";
pub(crate) const PROMOTED: &str = "promoted";
/// The most bytes of `NAME.promoted`: a digest and white space.
const PROMOTED_BYTES: usize = 256;

/// Looks at the plugins of all tenants, again and again.
///
/// A look at folders in which nothing changed opens none of them, however many there are: it costs a few
/// system calls for each plugin, and causes none of the notifications that opening a watched folder does,
/// of which thousands at once would overflow their queue and so cause the next look.
#[derive(Default)]
pub(crate) struct Looks {
    /// What each tenant's folder held when it was listed last.
    listings: HashMap<Arc<str>, Listing>,
    /// Tenants of which a look could tell what plugins they have.
    known: HashSet<Arc<str>>,
    count: u64,
}

/// The names of the files in a tenant's folder of plugins.
struct Listing {
    folder: FileStamp,
    /// Whether an equal stamp proves that the same names are in it.
    settled: bool,
    files: HashSet<String>,
}

/// Of the folders whose stamp says that nothing changed, one in so many is listed nevertheless, each
/// time others: a file system may not keep the times of folders.
const LISTED_ANYWAY: u64 = 16;

impl Looks {
    /// Look at every tenant's plugins, and at the operator's.
    pub(crate) fn look(&mut self, folders: &PluginFolders) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut listings = HashMap::new();
        let mut looked_at = Vec::new();
        self.count += 1;
        for (at, entry) in (self.count..).zip(fs::read_dir(&folders.tenants)?) {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            // What holds the data of a mounted folder is no mistake.
            let is_mounts = name.as_encoded_bytes().starts_with(b"..");
            if is_mounts || !kind.is_dir() && !kind.is_symlink() {
                continue;
            }
            if let Some(name) = name.to_str().filter(|name| is_name(name)) {
                let tenant: Arc<str> = Arc::from(name);
                if kind.is_symlink() && folders.home(name).is_err() {
                    // Whoever reads the tenant's endpoints says what is wrong with it.
                    looked_at.push(Arc::clone(&tenant));
                    scan.unreadable.push(tenant);
                    continue;
                }
                looked_at.push(Arc::clone(&tenant));
                let known = self.listings.remove(&tenant);
                let known = known.filter(|_| at % LISTED_ANYWAY != 0);
                if let Some(listing) = look_at(&mut scan, folders, &tenant, known) {
                    listings.insert(tenant, listing);
                }
            } else {
                let name = crate::text::printable(&name.to_string_lossy(), LONGEST_NAME);
                scan.problems.push(format!(
                    "tenant folder {name} is ignored: its name has to be 1 to 128 letters, digits, dots, dashes and underscores, and not begin with a dot"
                ));
            }
        }
        if folders.global.is_some() {
            let global: Arc<str> = Arc::from(GLOBAL);
            looked_at.push(Arc::clone(&global));
            let known = self.listings.remove(&global);
            let known = known.filter(|_| !self.count.is_multiple_of(LISTED_ANYWAY));
            if let Some(listing) = look_at(&mut scan, folders, &global, known) {
                listings.insert(global, listing);
            }
        }
        self.listings = listings;
        let unreadable: HashSet<_> = scan.unreadable.iter().cloned().collect();
        let is_known = |tenant: &Arc<str>| self.known.contains(tenant);
        scan.unknown = unreadable
            .iter()
            .filter(|t| !is_known(t))
            .cloned()
            .collect();
        let known = |tenant: &Arc<str>| is_known(tenant) || !unreadable.contains(tenant);
        self.known = looked_at.into_iter().filter(known).collect();
        Ok(scan)
    }
}

impl Listing {
    /// The names now, read only if they may be others than before; `None` if there is no folder.
    fn of(folder: &Path, known: Option<Self>) -> io::Result<Option<Self>> {
        let Some(now) = stamp(folder) else {
            return match fs::metadata(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(None),
            };
        };
        if let Some(known) = known.filter(|known| known.settled && known.folder == now) {
            return Ok(Some(known));
        }
        let looked = SystemTime::now();
        let mut files = HashSet::new();
        for entry in fs::read_dir(folder)? {
            // Other names are not those of a plugin's files.
            files.extend(entry?.file_name().into_string().ok());
        }
        Ok(Some(Self {
            folder: now,
            settled: now.is_settled(looked),
            files,
        }))
    }
}

/// Look at one tenant's plugins. Returns what its folder holds, if it could be read.
fn look_at(
    scan: &mut Scan,
    folders: &PluginFolders,
    tenant: &Arc<str>,
    known: Option<Listing>,
) -> Option<Listing> {
    let folder = folders.of(tenant)?;
    let is_global = **tenant == *GLOBAL;
    let listing = match Listing::of(&folder, known) {
        Ok(None) if is_global => {
            scan.problems.push(format!(
                "the folder of global plugins {} is gone; those that served go on serving",
                folder.display()
            ));
            scan.unreadable.push(Arc::clone(tenant));
            return None;
        }
        Ok(listing) => listing?,
        Err(error) => {
            scan.problems.push(format!(
                "the plugins of tenant {tenant} cannot be read: {error}"
            ));
            scan.unreadable.push(Arc::clone(tenant));
            return None;
        }
    };
    for file in &listing.files {
        let Some((name, COMPONENT)) = file.rsplit_once('.') else {
            continue;
        };
        if !is_name(name) {
            continue;
        }
        if is_global && ![BEFORE, AFTER].iter().any(|word| name.starts_with(word)) {
            scan.problems.push(format!(
                "the global plugin {file} is ignored: its name has to begin with {BEFORE} or {AFTER}"
            ));
            continue;
        }
        let key = Key {
            tenant: Arc::clone(tenant),
            name: Arc::from(name),
        };
        let of = |end: &str| {
            let file = format!("{name}.{end}");
            let is_there = listing.files.contains(&file);
            is_there.then(|| stamp(&folder.join(file))).flatten()
        };
        let stamp = Stamp {
            component: of(COMPONENT),
            manifest: of(MANIFEST),
            pinned: of(PINNED),
            promoted: of(PROMOTED),
        };
        scan.plugins.insert(key, stamp);
    }
    Some(listing)
}

/// Read a plugin's files, each once.
pub(crate) fn read(
    folders: &PluginFolders,
    key: &Key,
    component_bytes: usize,
    manifest_bytes: usize,
) -> Result<Content, LoadError> {
    let unreadable = |error: io::Error| LoadError::Unreadable(error.to_string());
    let folder = folders.of(&key.tenant).ok_or(io::ErrorKind::NotFound);
    let folder = folder.map_err(|kind| unreadable(kind.into()))?;
    let home = match folders.home(&key.tenant) {
        // Its files are gone, too, and to read them says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => folder.clone(),
        home => home.map_err(unreadable)?,
    };
    let name = |end: &str| format!("{}.{end}", key.name);
    let file = name(MANIFEST);
    let manifest =
        read_file(&folder, &home, &file, manifest_bytes).map_err(|error| LoadError::Manifest {
            file,
            reason: error.to_string(),
        })?;
    if let Some(component) = read_file(&folder, &home, &name(PINNED), component_bytes)? {
        return Ok(Content {
            component,
            manifest,
            standing: Standing::Pinned,
        });
    }
    let component = read_file(&folder, &home, &name(COMPONENT), component_bytes)?
        .ok_or_else(|| LoadError::Unreadable("it is gone".to_owned()))?;
    let promoted = read_file(&folder, &home, &name(PROMOTED), PROMOTED_BYTES)?;
    let is_promoted = promoted.is_some_and(|text| {
        let digest = std::str::from_utf8(&text).ok().map(str::trim);
        digest == Some(&Digest::of(&component).to_string())
    });
    Ok(Content {
        component,
        manifest,
        standing: if is_promoted {
            Standing::Promoted
        } else {
            Standing::Plain
        },
    })
}

/// Reads a file of `folder` whose true place is in `home`.
fn read_file(
    folder: &Path,
    home: &Path,
    file: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, LoadError> {
    let unreadable = |error: io::Error| LoadError::Unreadable(error.to_string());
    let path = folder.join(file);
    // Most have neither pins nor promotions, and to follow a path asks the system about each part of it.
    if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    {
        return Ok(None);
    }
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !path.starts_with(home) {
        return Err(LoadError::OutsideFolder);
    }
    // Neither follow what became a link since, nor wait for what is no file.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(LoadError::Unreadable("it is not a regular file".to_owned()));
    }
    read_bounded(&file, limit).map(Some)
}

/// Read a file of at most `limit` bytes.
pub(crate) fn read_bounded(file: &File, limit: usize) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error: io::Error| LoadError::Unreadable(error.to_string());
    // At once, and no more than may be, whatever the file says of itself. One byte more, to see its end.
    let expected = file.metadata().map_err(unreadable)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(limit).min(limit) + 1);
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > limit {
        Err(LoadError::TooLarge { limit })
    } else {
        Ok(bytes)
    }
}

fn plugins_folder(tenants: &Path, tenant: &str) -> PathBuf {
    tenants.join(tenant).join("plugins")
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileStamp {
        bytes: metadata.len(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
