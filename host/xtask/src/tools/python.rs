//! Python and its virtual environments.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{debian, output, version, works};
use crate::stamp::Stamp;
use crate::{run, step};

/// The oldest version that the packages used here run on.
const OLDEST: (u32, u32) = (3, 10);

/// The version of python3.
pub(crate) fn find() -> anyhow::Result<String> {
    let found = output("python3", &["--version"]);
    match found.as_deref().and_then(version) {
        Some(version) if version >= OLDEST => Ok(found.unwrap_or_default()),
        _ => bail!(
            "it needs python3 {}.{} or newer on the path ({})",
            OLDEST.0,
            OLDEST.1,
            found.map_or("there is none".to_owned(), |found| format!("found {found}"))
        ),
    }
}

/// A virtual environment at `folder` with what the `requirements` files name; gives the folder of
/// its commands.
pub(crate) fn environment(folder: &Path, requirements: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let python = find()?;
    let commands = folder.join("bin");
    let stamp = Stamp::of(
        folder.join(".stamp"),
        requirements.iter().cloned(),
        &[&python],
    )?;
    if stamp.is_current(&commands) {
        return Ok(commands);
    }
    step(&format!(
        "installing Python packages into {}",
        folder.display()
    ));
    let make = || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder))
    };
    // Debian has the module `venv`, and what it needs in a package of its own.
    if !works("python3", &["-c", "import ensurepip"]) {
        debian::install(&["python3-venv"], "for Python's virtual environments");
    }
    make().context("it needs Python's module venv (Debian: python3-venv)")?;
    let mut pip = Command::new(commands.join("python"));
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--no-input"]);
    for file in requirements {
        pip.arg("--requirement").arg(file);
    }
    run(&mut pip)?;
    stamp.write()?;
    Ok(commands)
}
