//! The fuzz targets, with coverage as guidance and on the stable compiler.
//!
//! What `cargo fuzz` adds to this is sanitizers, which need a nightly compiler: what is fuzzed is safe Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::tools::{debian, works};
use crate::{cargo, root, run, setup, step, target};

/// Has the compiler count which edges are taken and tell what is compared, as libFuzzer reads it.
const INSTRUMENTS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                           -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                           -Cllvm-args=-sanitizer-coverage-pc-table \
                           -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds if nobody says how many.
const SECONDS: u32 = 60;

/// Feeds the loader for some seconds. What it got to know is kept for the next time, and so is a file that it
/// fails on.
pub(crate) fn fuzz(rest: &[String]) -> anyhow::Result<()> {
    let seconds = match rest {
        [] => SECONDS,
        // libFuzzer takes 0 for no end.
        [seconds] => seconds
            .parse()
            .ok()
            .filter(|seconds| *seconds > 0)
            .with_context(|| format!("`{seconds}` is no number of seconds above 0"))?,
        _ => bail!("expected one number of seconds at most after `fuzz`"),
    };
    cpp_compiler()?;
    setup::guests()?;
    step("building the fuzz target; the first time takes some minutes");
    let (folder, triple) = (target().join("fuzz"), triple()?);
    let manifest = root().join("host/fuzz/Cargo.toml");
    run(cargo()
        .args(["build", "--locked", "--target", &triple])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&folder)
        // Of a target that is named, so not for what runs while building.
        .env("RUSTFLAGS", INSTRUMENTS))?;
    let corpus = folder.join("corpus");
    std::fs::create_dir_all(&corpus)
        .with_context(|| format!("cannot make {}", corpus.display()))?;
    seed(&setup::components(), &corpus)?;
    let program = folder.join(triple).join("debug/loader");
    step(&format!("feeding the loader for {seconds} s"));
    run(Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=300000", "-timeout=10", "-rss_limit_mb=2048"])
        .args(["-verbosity=0", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/failed-", folder.display()))
        .arg(corpus))
}

/// Sees to it that there is a C++ compiler.
fn cpp_compiler() -> anyhow::Result<()> {
    let there = || works("c++", &["--version"]);
    if there() || (debian::install(&["g++"], "which libFuzzer is built with") && there()) {
        return Ok(());
    }
    bail!(
        "there is no C++ compiler to build libFuzzer with; install one (Debian: apt-get install g++)"
    )
}

/// Begins with components that are sound.
fn seed(components: &Path, corpus: &Path) -> anyhow::Result<()> {
    let reading = || format!("cannot read {}", components.display());
    for file in std::fs::read_dir(components).with_context(reading)? {
        let file = file.with_context(reading)?.path();
        if let (Some("wasm"), Some(name)) = (
            file.extension().and_then(|it| it.to_str()),
            file.file_name(),
        ) {
            std::fs::copy(&file, corpus.join(name)).with_context(|| {
                format!("cannot copy {} to {}", file.display(), corpus.display())
            })?;
        }
    }
    Ok(())
}

/// What this machine's programs are built for.
fn triple() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot run rustc; install Rust with rustup")?;
    let version = String::from_utf8_lossy(&output.stdout);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("`rustc -vV` does not say what it builds for")
}
