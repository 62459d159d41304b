//! Logs, on standard error.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::LogFormat;
use crate::config::Log;
use crate::exit::{Coded, Exit};

/// Starts logging as configured. Lines of plugins themselves have the target
/// `wasmhook::plugin_log`.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let wrong = || {
        Coded::new(
            Exit::Configuration,
            "configuration key `log.level`: expected a level such as info, or directives such as info,wasmhook_engine=debug",
        )
    };
    if !log.level.split(',').all(is_directive) {
        return Err(wrong());
    }
    // The library that watches folders tells of each that is removed, and the one that verifies certificates of each
    // attempt at a receiver whose is bad, as an error, which the attempt tells itself.
    let directives = format!("notify=warn,rustls_platform_verifier=off,{}", log.level);
    let filter = EnvFilter::try_new(directives).map_err(|_| wrong())?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error, and where that is a file on a full disk, telling it
        // there is a panic that ends the task which only wanted to say something.
        .log_internal_errors(false)
        .with_ansi(is_coloured(
            std::io::stderr().is_terminal(),
            std::env::var_os("NO_COLOR").as_deref(),
        ));
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

/// Colours are for terminals whose user has not asked for none (<https://no-color.org>); in a file they are noise.
fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Whether it is a level, or has one. The filter takes any other word, such as `warning`, for the name of a
/// module to log alone, and the host would be silent.
fn is_directive(text: &str) -> bool {
    text.contains('=') || text.trim().parse::<LevelFilter>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let no_color = |value| Some(OsStr::new(value));
        assert!(is_coloured(true, None));
        assert!(is_coloured(true, no_color("")));
        assert!(!is_coloured(true, no_color("1")));
        assert!(!is_coloured(false, None));
    }
}
