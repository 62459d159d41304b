//! Labels that are safe for metrics and logs.

/// The longest label, in characters.
pub const MAX_LABEL: usize = 64;

/// Makes any text a bounded label: trimmed, lower-cased, everything but `a-z 0-9 _ - .` turned into
/// `_`, cut at [`MAX_LABEL`] characters; what is empty becomes `unknown`.
pub fn safe_label(text: &str) -> String {
    let label: String = text
        .trim()
        .chars()
        .flat_map(char::to_lowercase)
        .take(MAX_LABEL)
        .map(|c| {
            if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.') {
                c
            } else {
                '_'
            }
        })
        .collect();
    if label.is_empty() {
        "unknown".to_owned()
    } else {
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_safe_characters_and_replaces_the_rest() {
        assert_eq!(safe_label(" Invoice.Paid-1_a "), "invoice.paid-1_a");
        assert_eq!(safe_label("a b/c{é}"), "a_b_c___");
    }

    #[test]
    fn is_cut_and_never_empty() {
        assert_eq!(safe_label(&"X".repeat(99)).len(), MAX_LABEL);
        assert_eq!(safe_label("  "), "unknown");
    }

    proptest::proptest! {
        #[test]
        fn is_always_bounded_and_safe(text in ".*") {
            let label = safe_label(&text);
            proptest::prop_assert!(!label.is_empty() && label.len() <= MAX_LABEL);
            proptest::prop_assert_eq!(safe_label(&label), label);
        }
    }
}
