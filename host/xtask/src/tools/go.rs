//! The Go toolchain.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;

use super::{output, python, version};
use crate::root;

/// The oldest version that the bindings compile with.
const OLDEST: (u32, u32) = (1, 27);

/// The version of the go command on the path, or of the one that a Python package would bring.
pub(crate) fn find() -> anyhow::Result<String> {
    match on_path() {
        Some(version) => Ok(version),
        None => python::find().with_context(|| {
            let (major, minor) = OLDEST;
            format!("there is no go {major}.{minor} or newer on the path, and to bring one")
        }),
    }
}

/// The go command.
pub(crate) fn command() -> anyhow::Result<OsString> {
    if on_path().is_some() {
        return Ok("go".into());
    }
    let commands = python::environment(&root().join("plugins/target/tools/go"), &[requirements()])?;
    Ok(commands.join("go").into())
}

fn on_path() -> Option<String> {
    // Not one of the toolchains that an older go would fetch.
    output("env", &["GOTOOLCHAIN=local", "go", "version"])
        .filter(|found| version(found).is_some_and(|version| version >= OLDEST))
}

fn requirements() -> PathBuf {
    root().join("plugins/go/requirements.txt")
}
