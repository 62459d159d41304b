//! What commands print: tables and sentences for people, JSON for programs.
#![allow(clippy::print_stdout, reason = "printing is what this module is for")]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::Timestamp;
use serde::Serialize;

/// Prints a line, or several.
pub(crate) fn line(text: impl std::fmt::Display) {
    whole(plain(&format!("{text}\n")).as_bytes());
}

/// The same text without what a terminal would act upon: control characters, and marks that have text run from
/// right to left, with which an id could be made to look like another. They are written as JSON writes them, so that
/// JSON stays the same.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // All of them are below U+10000, and writing to a string cannot fail.
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Prints all of a text. A closed pipe, as of `| head`, ends the process quietly; a full disk does not, for
/// what was printed is not all there was.
#[expect(
    clippy::print_stderr,
    reason = "there is no other place left to say it"
)]
pub(crate) fn whole(text: &[u8]) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("wasmhook: cannot write to standard output: {error}");
            std::process::exit(1);
        }
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

/// So many of something, such as `1 delivery` or `2 deliveries`.
pub(crate) fn count(number: impl TryInto<u64> + std::fmt::Display + Copy, one: &str) -> String {
    if matches!(number.try_into(), Ok(1)) {
        return format!("1 {one}");
    }
    let consonant = |letter: char| !matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u');
    match one.strip_suffix('y') {
        Some(stem) if stem.ends_with(consonant) => format!("{number} {stem}ies"),
        _ => format!("{number} {one}s"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_shown_instead() {
        let id = "evt_\u{202e}1\u{1b}[2J\té\u{2069}\u{200f}";
        assert_eq!(plain(id), "evt_\\u202e1\\u001b[2J\té\\u2069\\u200f");
        let json = serde_json::to_string(id).unwrap();
        let read: String = serde_json::from_str(&plain(&json)).unwrap();
        assert_eq!(read, id);
        assert!(matches!(plain("ordinary\ntext, مرحبا"), Cow::Borrowed(_)));
    }

    #[test]
    fn one_of_something_is_told_in_the_singular() {
        let told = [
            count(0, "delivery"),
            count(1, "delivery"),
            count(2_u64, "delivery"),
            count(1_u64, "key"),
            count(3_usize, "key"),
            count(2, "dead letter"),
        ];
        let expected = [
            "0 deliveries",
            "1 delivery",
            "2 deliveries",
            "1 key",
            "3 keys",
            "2 dead letters",
        ];
        assert_eq!(told, expected);
    }
}
