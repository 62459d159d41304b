//! Telling that a tenant's files have not changed, without opening any of them.
//!
//! A host with ten thousand tenants looks at all of them every few seconds and finds, as a rule, nothing.
//! Opening a file that is under watch is also a notification, of which thousands at once would overflow
//! their queue and cause the next look.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A change within this time of a look could be followed by another that leaves the same times and size.
const SETTLED: Duration = Duration::from_secs(2);

/// What a tenant was read from, and how each of it looked then.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// Files and folders, links followed, with `None` for what was not there.
    places: Vec<(PathBuf, Option<Stamp>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
    #[cfg(unix)]
    inode: (u64, u64),
    #[cfg(unix)]
    changed: (i64, i64),
    /// Who may read it.
    #[cfg(unix)]
    mode: u32,
}

impl Stamps {
    /// Take down how these places look after they were read, which began at `began`. `None` if something
    /// was changed since, or too short a time before for equal stamps to prove anything later.
    pub(crate) fn take(
        places: impl IntoIterator<Item = PathBuf>,
        began: SystemTime,
    ) -> Option<Self> {
        let places = places
            .into_iter()
            .map(|path| {
                let stamp = Stamp::of(&path);
                (path, stamp)
            })
            .collect::<Vec<_>>();
        let is_settled = |(_, stamp): &(PathBuf, Option<Stamp>)| {
            stamp.as_ref().is_none_or(|stamp| stamp.is_settled(began))
        };
        places.iter().all(is_settled).then_some(Self { places })
    }

    /// Whether everything looks as it did.
    pub(crate) fn are_current(&self) -> bool {
        self.places
            .iter()
            .all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok()?,
            #[cfg(unix)]
            inode: (metadata.dev(), metadata.ino()),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            #[cfg(unix)]
            mode: metadata.mode(),
        })
    }

    fn is_settled(&self, began: SystemTime) -> bool {
        let is_old = |time: SystemTime| began.duration_since(time).is_ok_and(|age| age > SETTLED);
        #[cfg(unix)]
        {
            let seconds = u64::try_from(self.changed.0).unwrap_or_default() + 1;
            is_old(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)) && is_old(self.modified)
        }
        #[cfg(not(unix))]
        is_old(self.modified)
    }
}
