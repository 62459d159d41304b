//! What a fresh machine lacks.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::{cargo, root, run, step};

/// The target that guest components are built for.
const TARGET: &str = "wasm32-wasip2";

/// Where the built components are.
pub(crate) fn components() -> PathBuf {
    root().join("plugins/target").join(TARGET).join("release")
}

/// Builds the guest components from source.
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
    if works("apt-get", &["--version"]) {
        step("installing Debian's package redis-server, which the tests start servers from");
        // Root installs at once; others only where sudo asks for no password.
        let prefix: &[&str] = if works("sh", &["-c", "test \"$(id -u)\" = 0"]) {
            &[]
        } else {
            &["sudo", "-n"]
        };
        let installed = apt(prefix, &["install", "-y", "redis-server"])
            || (apt(prefix, &["update"]) && apt(prefix, &["install", "-y", "redis-server"]));
        if installed && works("redis-server", &["--version"]) {
            return Ok(());
        }
    }
    bail!(
        "there is no redis-server on the path, and it could not be installed; install Redis 7 or newer (Debian: \
         apt-get install redis-server), or name one in WASMHOOK_REDIS_SERVER"
    )
}

fn apt(prefix: &[&str], words: &[&str]) -> bool {
    let all: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["apt-get", "-q"])
        .chain(words.iter().copied())
        .collect();
    let Some((program, words)) = all.split_first() else {
        return false;
    };
    Command::new(program)
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn works(program: &str, words: &[&str]) -> bool {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
