//! Node.js and npm.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use super::{output, version, works};
use crate::stamp::Stamp;
use crate::{run, step};

/// The oldest line that the packages used here run on.
const OLDEST: u32 = 20;

/// The version of node.
pub(crate) fn find() -> anyhow::Result<String> {
    let found = output("node", &["--version"]);
    match found.as_deref().and_then(version) {
        Some((major, _)) if major >= OLDEST && works("npm", &["--version"]) => {
            Ok(found.unwrap_or_default())
        }
        _ => bail!(
            "it needs Node.js {OLDEST} or newer with npm on the path ({})",
            found.map_or("there is none".to_owned(), |found| format!("found {found}"))
        ),
    }
}

/// Installs what the lock file in `folder` names into its `node_modules`.
pub(crate) fn packages(folder: &Path) -> anyhow::Result<()> {
    let node = find()?;
    let installed = folder.join("node_modules");
    let stamp = Stamp::of(
        installed.join(".stamp"),
        [folder.join("package-lock.json")],
        &[&node],
    )?;
    if stamp.is_current(&installed) {
        return Ok(());
    }
    step(&format!("installing npm packages for {}", folder.display()));
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder);
    run(&mut npm)?;
    stamp.write()
}
