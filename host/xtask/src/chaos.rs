//! The chaos suite: the real binary under faults, and a verdict on every event.

use crate::{build_and_run, setup, step};

/// The short form on the unoptimised build, which tests have made already; the long one optimised.
pub(crate) fn chaos(rest: &[String]) -> anyhow::Result<()> {
    setup::redis_server()?;
    step("building wasmhook and the chaos suite; the first time takes some minutes");
    let short = rest.iter().any(|word| word == "--short");
    build_and_run(!short, &["wasmhook", "wasmhook-chaos"], rest)
}
