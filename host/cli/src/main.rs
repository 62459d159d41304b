//! The wasmhook binary: configuration, wiring and commands.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod exit;
mod host;
mod json_text;
mod logging;
mod made_up;
mod monitoring;
mod open_files;
mod output;
mod parts;
mod receiver;
mod stores;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};

/// Deliveries are allocated on one thread and freed on another, which is where the system's allocator
/// is slow: a fifth of the host's processor time, by profile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::CompileComponent { job } = &cli.command {
        // Before any thread starts: its bounds are the process's.
        return wasmhook_runtime::run_compiler(job);
    }
    let json = cli.global.json;
    // For the commands' own HTTP client. Fails only if it was set before, which nothing does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(
                &anyhow::Error::new(error).context("cannot start the async runtime"),
                json,
            );
        }
    };
    let ended = runtime.block_on(commands::run(cli));
    // A blocked thread, such as one reading standard input, must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, json),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "errors of commands go to standard error"
)]
fn failed(error: &anyhow::Error, json: bool) -> ExitCode {
    let exit = exit::code(error);
    if json {
        eprintln!(
            "{}",
            serde_json::json!({ "error": format!("{error:#}"), "exit": exit as u8 })
        );
    } else {
        eprintln!("wasmhook: {}", output::plain(&format!("{error:#}")));
    }
    exit.into()
}
