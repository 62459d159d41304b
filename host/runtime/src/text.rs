//! Makes a guest's words safe to show.

/// At most `limit` characters of `text`, with every control character, and every character that
/// reorders or hides what is around it, as a space.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars()
        .take(limit)
        .map(|c| if is_unsafe(c) { ' ' } else { c })
        .collect()
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_overlong_texts_are_neutralised() {
        assert_eq!(printable("a\nb\u{1b}[0m\u{202e}c", 200), "a b [0m c");
        assert_eq!(printable(&"é".repeat(300), 200).chars().count(), 200);
    }
}
