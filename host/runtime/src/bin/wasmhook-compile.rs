//! The compiler as a program of its own, for services that run plugins and for this crate's tests.
//! The `wasmhook` binary has the same as a subcommand that it starts itself with.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmhook_runtime::run_compiler(&std::env::args().next_back().unwrap_or_default())
}
