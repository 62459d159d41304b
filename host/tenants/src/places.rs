//! Where the files of tenants truly are.
//!
//! What is mounted into a container as a `ConfigMap` or a `Secret` is made of symbolic links: `tenant.toml` leads to
//! `..data/tenant.toml`, and with it `acme` to `..data/acme`, where `..data` leads to a hidden folder beside it and
//! is replaced as a whole. Such links are followed, and none out of a tenant's folder or into another's.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The true folder of a tenant below `root`; `None` if there is none, and a reason if it cannot be used.
pub(crate) fn folder(root: &Path, name: &str) -> Result<Option<PathBuf>, String> {
    let path = root.join(name);
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Ok(Some(path)),
        Ok(metadata) if metadata.is_symlink() => {}
        Ok(_) => return Err("expected a folder".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the folder cannot be read: {}", error.kind())),
    }
    let found = fs::canonicalize(&path).map_err(not_followed)?;
    let root = fs::canonicalize(root).map_err(not_followed)?;
    let first = found
        .strip_prefix(&root)
        .ok()
        .and_then(|rest| rest.components().next());
    let is_hidden = matches!(first, Some(Component::Normal(first)) if first.as_encoded_bytes().starts_with(b"."));
    if is_hidden && found.is_dir() {
        Ok(Some(found))
    } else {
        Err(
            "a tenant's folder may be a symbolic link only to what is below a hidden folder beside it, as in a \
             mounted volume"
                .to_owned(),
        )
    }
}

/// The true path of a file in a true folder; `None` if there is none, and a reason if it cannot be used.
pub(crate) fn file(folder: &Path, name: &str) -> Result<Option<PathBuf>, String> {
    let path = folder.join(name);
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => return Ok(Some(path)),
        Ok(metadata) if metadata.is_symlink() => {}
        Ok(_) => return Err("expected a file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the file cannot be read: {}", error.kind())),
    }
    let found = fs::canonicalize(&path).map_err(not_followed)?;
    let folder = fs::canonicalize(folder).map_err(not_followed)?;
    if !found.starts_with(folder) {
        return Err("a symbolic link leads out of the tenant's folder".to_owned());
    }
    if !found.is_file() {
        return Err("expected a file".to_owned());
    }
    Ok(Some(found))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what errors are mapped with"
)]
fn not_followed(error: io::Error) -> String {
    format!("a symbolic link cannot be followed: {}", error.kind())
}
