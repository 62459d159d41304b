//! Makes a guest's words safe to show, and numbers easy to read.

use std::fmt;

/// At most `limit` characters of `text`, with every control character, and every character that
/// reorders or hides what is around it, as a space.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars()
        .take(limit)
        .map(|c| if is_unsafe(c) { ' ' } else { c })
        .collect()
}

/// The same, to stand behind a colon: it begins with a small letter.
pub(crate) fn clause(text: &str, limit: usize) -> String {
    let mut text = printable(text, limit);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Displays a number of bytes in the largest unit that it is a whole number of.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{} {unit}", self.0 / bytes);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_overlong_texts_are_neutralised() {
        assert_eq!(printable("a\nb\u{1b}[0m\u{202e}c", 200), "a b [0m c");
        assert_eq!(printable(&"é".repeat(300), 200).chars().count(), 200);
        assert_eq!(
            ["The\tend", "", "Éa"].map(|text| clause(text, 9)),
            ["the end", "", "Éa"]
        );
    }

    #[test]
    fn bytes_are_told_in_whole_units() {
        let told =
            [0, 1023, 1 << 10, 64 << 20, 1 << 30, (1 << 20) + 1].map(|n| Bytes(n).to_string());
        assert_eq!(
            told,
            [
                "0 bytes",
                "1023 bytes",
                "1 KiB",
                "64 MiB",
                "1 GiB",
                "1048577 bytes"
            ]
        );
    }
}
