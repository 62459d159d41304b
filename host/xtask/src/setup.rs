//! What a fresh machine lacks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::tools::{debian, works};
use crate::{cargo, root, run, step};

/// The target that guest components are built for.
const TARGET: &str = "wasm32-wasip2";

/// Where the built components are.
pub(crate) fn components() -> PathBuf {
    root().join("plugins/target").join(TARGET).join("release")
}

/// Builds the guest components in Rust from source.
pub(crate) fn guests() -> anyhow::Result<()> {
    wasm_target()?;
    step("building the guest components");
    // Where tests, demo and README look for them, whatever CARGO_TARGET_DIR says.
    let plugins = root().join("plugins");
    run(cargo()
        .args(["build", "--locked", "--release", "--target", TARGET])
        .arg("--manifest-path")
        .arg(plugins.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(plugins.join("target")))
}

fn wasm_target() -> anyhow::Result<()> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .context("cannot run rustc; install Rust with rustup")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    step("adding the target wasm32-wasip2");
    run(Command::new("rustup").args(["target", "add", TARGET])).with_context(|| {
        format!("the Rust target {TARGET} is missing; install it, with rustup: rustup target add {TARGET}")
    })
}

/// Sees to it that there is a `redis-server`.
pub(crate) fn redis_server() -> anyhow::Result<()> {
    if std::env::var_os("WASMHOOK_REDIS_SERVER").is_some() || works("redis-server", &["--version"])
    {
        return Ok(());
    }
    if debian::install(&["redis-server"], "which the tests start servers from")
        && works("redis-server", &["--version"])
    {
        return Ok(());
    }
    bail!(
        "there is no redis-server on the path, and it could not be installed; install Redis 7 or newer (Debian: \
         apt-get install redis-server), or name one in WASMHOOK_REDIS_SERVER"
    )
}
