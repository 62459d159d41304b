//! What is different between two bodies, for people.

use std::borrow::Cow;
use std::time::Duration;

use similar::TextDiff;

use crate::json_text::Json;

/// Unchanged lines shown around what changed.
const CONTEXT: usize = 2;
/// How long a difference is made smaller; past that it is right, and larger than need be.
const PATIENCE: Duration = Duration::from_millis(500);

/// The difference of two bodies: of the lines, after JSON is laid out with one value a line. `None`
/// when they are the same to the byte.
pub(super) fn between(before: &[u8], after: &[u8]) -> Option<String> {
    if before == after {
        return None;
    }
    let (Some(old), Some(new)) = (laid_out(before), laid_out(after)) else {
        return Some(format!(
            "{} bytes before, {} bytes after, not both text\n",
            before.len(),
            after.len()
        ));
    };
    if old == new {
        return Some("the same JSON with other white space\n".to_owned());
    }
    let lines = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(&*old, &*new)
        .unified_diff()
        .context_radius(CONTEXT)
        .to_string();
    Some(lines)
}

fn laid_out(body: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(body).ok()?;
    Some(match Json::parse(text) {
        Ok(json) => Cow::Owned(json.pretty()),
        Err(_) => Cow::Borrowed(text),
    })
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn a_difference_is_told_by_values_and_says_when_it_is_white_space_only() {
        assert_eq!(between(b"{}", b"{}"), None);
        assert_eq!(
            between(br#"{"a":1.00,"b":2}"#, br#"{"a":1.0,"b":2}"#).unwrap(),
            "@@ -1,4 +1,4 @@\n {\n-  \"a\": 1.00,\n+  \"a\": 1.0,\n   \"b\": 2\n }\n"
        );
        assert_eq!(
            between(b"{\"a\":1}", b"{ \"a\": 1 }").unwrap(),
            "the same JSON with other white space\n"
        );
        assert_eq!(
            between(b"{}", b"\xff").unwrap(),
            "2 bytes before, 1 bytes after, not both text\n"
        );
        assert!(
            between(b"one\n", b"two\n")
                .unwrap()
                .contains("-one\n+two\n")
        );
    }
}
