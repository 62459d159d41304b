//! What commands print: tables and sentences for people, JSON for programs.
#![allow(clippy::print_stdout, reason = "printing is what this module is for")]

use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;
use serde::Serialize;

/// Prints a line; a closed pipe, as of `| head`, ends the process quietly.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Prints rows under a header, or a sentence when there are none.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, none: &str) {
    if rows.is_empty() {
        line(none);
        return;
    }
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(str::to_uppercase));
    table.add_rows(rows);
    for row in table.to_string().lines() {
        line(row.trim());
    }
}

/// A time for people: UTC, whole milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A duration from now for people, such as `in 4m` or `12s ago`.
pub(crate) fn relative(at: Timestamp) -> String {
    let now = Timestamp::now();
    let (earlier, later, past) = if at < now {
        (at, now, true)
    } else {
        (now, at, false)
    };
    let seconds = later.as_second().saturating_sub(earlier.as_second());
    let words = match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m", seconds / 60),
        3600..=86_399 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    };
    if past {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

/// The beginning of a digest, enough to tell versions apart by eye.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
