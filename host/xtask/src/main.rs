//! Set-up, demo, test, benchmark and chaos commands of the wasmhook repository.
//!
//! `cargo xtask demo`, `test`, `bench [NAME…]`, `chaos [--short]`, `fuzz [SECONDS]`, `guests [--all]`.
//! Each installs or builds what it needs, or stops with one sentence that says what to install.
#![allow(clippy::print_stderr, reason = "progress is what this program says")]

mod chaos;
mod examples;
mod fuzz;
mod guests;
mod setup;
mod stamp;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::tools::valkey;

const USAGE: &str =
    "expected one of: cargo xtask demo | test | bench [NAME…] | chaos [--short] | fuzz [SECONDS] | guests [--all]

  demo    build everything and show the whole job on the embedded store
  test    build everything and run every test; what needs a language or a server that this machine
          lacks is left out, unless `--all-guests` follows or CI=true is set
  bench   build everything optimised and measure; results in target/bench/latest.json
  chaos   break everything around real hosts and account for every event; --help says more
  fuzz    feed the loader of plugins with files that are made up, a minute unless told otherwise
  guests  build the guest components in Rust; with `--all`, in every language";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let done = match command.as_str() {
        "demo" => demo(&rest),
        "test" => test(&rest),
        "bench" => bench(&rest),
        "chaos" => chaos::chaos(&rest),
        "fuzz" => fuzz::fuzz(&rest),
        "guests" => guests(&rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(rest: &[String]) -> anyhow::Result<()> {
    setup::guests()?;
    step("building wasmhook; the first time takes some minutes");
    // Unoptimised: the shorter wait for who only wants to see it.
    let mut cargo = cargo();
    cargo.args(["run", "--locked", "--package", "wasmhook", "--", "demo"]);
    cargo
        .arg("--components")
        .arg(setup::components())
        .args(rest);
    run(&mut cargo)
}

fn test(rest: &[String]) -> anyhow::Result<()> {
    const ALL: &str = "--all-guests";
    let must =
        rest.iter().any(|word| word == ALL) || std::env::var("CI").is_ok_and(|ci| ci == "true");
    setup::guests()?;
    setup::redis_server()?;
    let mut skipped = guests::build_all(must)?;
    skipped.extend(examples::set_up(must)?);
    step("building and running all tests; the first time takes some minutes");
    let mut cargo = cargo();
    cargo
        .args(["test", "--locked", "--workspace"])
        .args(rest.iter().filter(|word| *word != ALL));
    if !skipped.is_empty() && !rest.iter().any(|word| word == "--") {
        cargo.arg("--");
    }
    for tests in skipped {
        cargo.arg("--skip").arg(tests);
    }
    run(&mut cargo)?;
    if rest.iter().all(|word| word == ALL) {
        test_on_valkey(must)?;
    }
    Ok(())
}

/// Runs the tests of the store on Redis again, on Valkey; there may be none unless `must`.
fn test_on_valkey(must: bool) -> anyhow::Result<()> {
    let server = match valkey::server() {
        Ok(server) => server,
        Err(why) if must => return Err(why.context("the store cannot be tested on Valkey")),
        Err(why) => {
            step(&format!(
                "left out: the tests of the store on Valkey: {why:#}"
            ));
            return Ok(());
        }
    };
    step("running the tests of the store on Valkey");
    let mut cargo = cargo();
    // All packages, as above, so that nothing is built again.
    cargo.args(["test", "--locked", "--workspace"]);
    for tests in ["redis", "kv", "check", "topologies"] {
        cargo.args(["--test", tests]);
    }
    // Of the servers that are found, some are built without TLS.
    cargo.args(["--", "--skip", "tls"]);
    run(cargo.env("WASMHOOK_REDIS_SERVER", server))
}

fn guests(rest: &[String]) -> anyhow::Result<()> {
    setup::guests()?;
    match rest {
        [] => Ok(()),
        [word] if word == "--all" => guests::build_all(true).map(drop),
        _ => bail!("expected nothing or `--all` after `guests`"),
    }
}

fn bench(rest: &[String]) -> anyhow::Result<()> {
    setup::guests()?;
    setup::redis_server()?;
    step("building wasmhook optimised; the first time takes some minutes");
    build_and_run(true, &["wasmhook", "wasmhook-bench"], rest)
}

/// Builds packages in one go, so that what they depend on is built once for all of them, and runs the
/// program of the last, which finds those of the others beside it.
fn build_and_run(release: bool, packages: &[&str], rest: &[String]) -> anyhow::Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked"]);
    build.args(release.then_some("--release"));
    for package in packages {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    let program = target()
        .join(if release { "release" } else { "debug" })
        .join(packages.last().context("there is nothing to run")?);
    run(Command::new(program).current_dir(root()).args(rest))
}

/// Says what happens next.
fn step(words: &str) {
    eprintln!("==> {words}");
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Cargo set these to run xtask. Build scripts that look at them would run again each time after somebody calls
    // cargo without xtask, and all that depends on their crates be built anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command with our own standard streams, so that its progress is seen.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        bail!("`{name} {}` failed ({status})", words.join(" "));
    }
    Ok(())
}

/// Where cargo builds.
fn target() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR");
    root().join(folder.map_or_else(|| "target".into(), PathBuf::from))
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .unwrap_or_default()
}
