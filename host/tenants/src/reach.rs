//! Watching a folder and all below it, as far as that can be done.
//!
//! The library goes through a tree and ends at the first folder that it may not open, so one such folder would leave
//! all unwatched that it had not come to.

use std::fs;
use std::path::{Path, PathBuf};

use notify::{Error, ErrorKind};

/// A folder that cannot be watched, and why.
pub(crate) struct Closed {
    pub(crate) path: PathBuf,
    pub(crate) reason: Error,
}

/// Puts an absolute path and all below it under watch, `add` being the library's way to do so, and says what is left
/// out. Fails when no more can be watched at all.
pub(crate) fn watch(
    path: &Path,
    add: &mut impl FnMut(&Path) -> notify::Result<()>,
    closed: &mut Vec<Closed>,
) -> notify::Result<()> {
    let Err(error) = add(path) else {
        return Ok(());
    };
    if matches!(error.kind, ErrorKind::MaxFilesWatch) {
        return Err(error);
    }
    let named = error.paths.first().filter(|named| named.starts_with(path));
    let failed = named.map_or_else(|| path.to_owned(), PathBuf::clone);
    // What lies beside the way to it may not have been come to.
    let mut way = failed.as_path();
    while let Some(parent) = way.parent().filter(|_| way != path) {
        for beside in folders(parent).filter(|beside| beside != way) {
            watch(&beside, add, closed)?;
        }
        way = parent;
    }
    // One that is gone by now has no place in the warning.
    if failed.symlink_metadata().is_ok() {
        closed.push(Closed {
            path: failed,
            reason: error.set_paths(Vec::new()),
        });
    }
    Ok(())
}

/// The folders in a folder, links to some left out.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;

    use super::*;

    /// As the library adds a tree, but for folders by the name of `closed`, which a test cannot close to the superuser.
    fn add(path: &Path, watched: &mut BTreeSet<PathBuf>) -> notify::Result<()> {
        if path.file_name().is_some_and(|name| name == "closed") {
            let error = Error::io(io::ErrorKind::PermissionDenied.into());
            return Err(error.add_path(path.to_owned()));
        }
        watched.insert(path.to_owned());
        folders(path).try_for_each(|below| add(&below, watched))
    }

    #[test]
    fn all_is_watched_but_the_folders_that_cannot_be() {
        let root = tempfile::tempdir().unwrap();
        let open = [
            "a/plugins",
            "b/plugins/deep",
            "c",
            "d/e/f/beside",
            "d/e/g",
            "z/plugins",
        ];
        let shut = ["b/closed", "closed", "d/e/f/closed", "d/closed"];
        for path in open {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        for path in shut {
            fs::create_dir_all(root.path().join(path).join("below")).unwrap();
        }
        let mut expected = BTreeSet::new();
        for path in open {
            let path = root.path().join(path);
            let within = path.ancestors().take_while(|path| path.starts_with(&root));
            expected.extend(within.map(Path::to_owned));
        }
        let (mut watched, mut closed) = (BTreeSet::new(), Vec::new());
        watch(
            root.path(),
            &mut |path| add(path, &mut watched),
            &mut closed,
        )
        .unwrap();
        assert_eq!(watched, expected);
        let closed: BTreeSet<_> = closed.into_iter().map(|closed| closed.path).collect();
        assert_eq!(closed, shut.map(|path| root.path().join(path)).into());
    }

    #[test]
    fn a_folder_that_cannot_be_watched_itself_is_named_and_one_that_is_gone_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("closed");
        fs::create_dir(&path).unwrap();
        let mut closed = Vec::new();
        let mut refuse = |path: &Path| add(path, &mut BTreeSet::new());
        watch(&path, &mut refuse, &mut closed).unwrap();
        assert_eq!(closed[0].path, path);
        fs::remove_dir(&path).unwrap();
        closed.clear();
        watch(&path, &mut refuse, &mut closed).unwrap();
        assert!(closed.is_empty());
    }

    #[test]
    fn nothing_is_left_out_when_no_more_can_be_watched() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let mut asked = 0;
        let mut full = |path: &Path| {
            asked += 1;
            Err(Error::new(ErrorKind::MaxFilesWatch).add_path(path.join("a")))
        };
        let mut closed = Vec::new();
        assert!(watch(root.path(), &mut full, &mut closed).is_err());
        assert!(closed.is_empty());
        assert_eq!(asked, 1, "the rest would meet the same");
    }
}
