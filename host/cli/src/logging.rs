//! Logs, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::config::Log;
use crate::exit::{Coded, Exit};

/// Starts logging as configured. Lines of plugins themselves have the target
/// `wasmhook::plugin_log`.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).map_err(|_| {
        Coded::new(
            Exit::Configuration,
            "configuration key `log.level`: expected a level such as info, or directives such as info,wasmhook_engine=debug",
        )
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error, and where that is a file on a full disk, telling it
        // there is a panic that ends the task which only wanted to say something.
        .log_internal_errors(false)
        // Colours are for terminals; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Human => lines.with_target(false).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}
