//! Room in the archive: how much all kept components take, and which of them go when it is too much.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::folder::Key;
use crate::types::Digest;

/// A component that is kept.
struct Component {
    /// When it was first kept.
    since: SystemTime,
    bytes: u64,
    path: PathBuf,
    is_spared: bool,
}

/// Remove the oldest components until all take no more than `most` bytes, and a tenth less if any has to
/// go, so that a full archive is not looked through at every turn. Those that are spared stay. Returns
/// what is left.
pub(super) fn make(folder: &Path, most: u64, is_spared: impl Fn(&Key, Digest) -> bool) -> u64 {
    let mut components = Vec::new();
    for tenant in entries(folder) {
        for plugin in entries(&tenant.path()) {
            let key = Key {
                tenant: tenant.file_name().to_string_lossy().into(),
                name: plugin.file_name().to_string_lossy().into(),
            };
            let files = entries(&plugin.path());
            components.extend(files.filter_map(|file| component(&file, &key, &is_spared)));
        }
    }
    let mut held: u64 = components.iter().map(|component| component.bytes).sum();
    if held <= most {
        return held;
    }
    components.retain(|component| !component.is_spared);
    components.sort_by_key(|component| component.since);
    for component in components {
        if held <= most - most / 10 {
            break;
        }
        if fs::remove_file(&component.path).is_ok() {
            held -= component.bytes;
            // There may be none.
            let _ = fs::remove_file(component.path.with_extension("toml"));
        }
    }
    held
}

/// How many components of a tenant there are in its folder, and how many bytes they take.
pub(super) fn held(tenant: &Path) -> (u64, u64) {
    let files = entries(tenant).flat_map(|plugin| entries(&plugin.path()));
    let components = files.filter(|file| file.path().extension().is_some_and(|end| end == "wasm"));
    components.fold((0, 0), |(count, bytes), file| {
        let more = file.metadata().map_or(0, |metadata| metadata.len());
        (count + 1, bytes + more)
    })
}

fn component(
    file: &DirEntry,
    key: &Key,
    is_spared: impl Fn(&Key, Digest) -> bool,
) -> Option<Component> {
    let path = file.path();
    if path.extension()? != "wasm" {
        return None;
    }
    let digest = path.file_stem()?.to_str()?.parse().ok()?;
    let metadata = file.metadata().ok()?;
    Some(Component {
        since: metadata.modified().ok()?,
        bytes: metadata.len(),
        is_spared: is_spared(key, digest),
        path,
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
