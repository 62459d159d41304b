//! The chaos suite: the real binary under faults, and a verdict on every event.

use crate::{cargo, run, setup, step};

/// The short form on the unoptimised build, which tests have made already; the long one optimised.
pub(crate) fn chaos(rest: &[String]) -> anyhow::Result<()> {
    setup::redis_server()?;
    step("building wasmhook and the chaos suite; the first time takes some minutes");
    let short = rest.iter().any(|word| word == "--short");
    let profile: &[&str] = if short { &[] } else { &["--release"] };
    let packages = ["--package", "wasmhook", "--package", "wasmhook-chaos"];
    run(cargo()
        .args(["build", "--locked"])
        .args(profile)
        .args(packages))?;
    run(cargo()
        .args(["run", "--locked", "--quiet"])
        .args(profile)
        .args(["--package", "wasmhook-chaos", "--"])
        .args(rest))
}
