//! Our own tool for languages whose compilers make core modules.

use crate::{cargo, root, run, step};

/// Compiles it, where the build scripts look for it.
pub(crate) fn build() -> anyhow::Result<()> {
    let plugins = root().join("plugins");
    step("building plugins/componentize");
    run(cargo()
        .args(["build", "--locked", "--manifest-path"])
        .arg(plugins.join("componentize/Cargo.toml"))
        .arg("--target-dir")
        .arg(plugins.join("target/componentize")))
}
