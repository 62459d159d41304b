//! Takes out of payloads what must not leave the host, and keeps their shape.

use std::borrow::Cow;
use std::str::FromStr;

use crate::json_text::{Json, spelled};

/// The longest text that is masked alike, in characters.
const SHORT: usize = 16;

/// A field to be masked, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    named: String,
    path: Path,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Path {
    /// A JSON pointer: one place.
    Pointer(Vec<String>),
    /// Names separated by dots: wherever a field of the last name is inside ones of the others, arrays
    /// in between not counted. In whatever case they are written: a name too many that is masked does no
    /// harm, one too few does.
    Names(Vec<String>),
}

impl FromStr for Field {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = if let Some(pointer) = text.strip_prefix('/') {
            let unescaped = |token: &str| token.replace("~1", "/").replace("~0", "~");
            Path::Pointer(pointer.split('/').map(unescaped).collect())
        } else {
            let names: Vec<_> = text.split('.').map(str::to_owned).collect();
            if names.iter().any(String::is_empty) {
                return Err(
                    "expected names separated by dots, such as customer.email, or a JSON pointer, such as /lines/0/name",
                );
            }
            Path::Names(names)
        };
        Ok(Self {
            named: text.to_owned(),
            path,
        })
    }
}

/// A step into a payload.
enum Step {
    Name(String),
    Index(usize),
}

impl Path {
    fn fits(&self, steps: &[Step]) -> bool {
        match self {
            Self::Pointer(tokens) => {
                tokens.len() == steps.len()
                    && tokens.iter().zip(steps).all(|(token, step)| match step {
                        Step::Name(name) => token == name,
                        Step::Index(index) => *token == index.to_string(),
                    })
            }
            Self::Names(names) => {
                matches!(steps.last(), Some(Step::Name(_)))
                    && names
                        .iter()
                        .rev()
                        .zip(within(steps, names.len()))
                        .all(|(name, found)| found.is_some_and(|found| is_same(name, found)))
            }
        }
    }
}

/// Whether two names differ in nothing but case.
fn is_same(one: &str, other: &str) -> bool {
    let lower = |name: &str| {
        name.chars()
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    one == other || lower(one) == lower(other)
}

/// The last names on the way to a place, the innermost first; `None` for those that there are not.
fn within(steps: &[Step], count: usize) -> impl Iterator<Item = Option<&String>> {
    steps
        .iter()
        .rev()
        .filter_map(|step| match step {
            Step::Name(name) => Some(Some(name)),
            Step::Index(_) => None,
        })
        .chain(std::iter::repeat(None))
        .take(count)
}

/// Masks payloads, and remembers which fields were ever there.
pub(super) struct Mask {
    fields: Vec<(Field, bool)>,
}

impl Mask {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        Self {
            fields: fields.into_iter().map(|field| (field, false)).collect(),
        }
    }

    /// Masks the fields in a payload. Of a field that holds others, each value inside it is masked.
    pub(super) fn apply(&mut self, payload: &mut Json<'_>) {
        self.walk(payload, &mut Vec::new());
    }

    /// Fields that no payload had.
    pub(super) fn unmatched(&self) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(_, found)| !found)
            .map(|(field, _)| field.named.as_str())
            .collect()
    }

    fn walk(&mut self, value: &mut Json<'_>, steps: &mut Vec<Step>) {
        let mut is_masked = false;
        for (field, found) in &mut self.fields {
            if field.path.fits(steps) {
                *found = true;
                is_masked = true;
            }
        }
        // What is inside is looked at even if it is masked as a whole: other fields may be there.
        match value {
            Json::Scalar(_) => {}
            Json::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    steps.push(Step::Index(index));
                    self.walk(item, steps);
                    steps.pop();
                }
            }
            Json::Object(members) => {
                for (name, value) in members {
                    steps.push(Step::Name(spelled(name).into_owned()));
                    self.walk(value, steps);
                    steps.pop();
                }
            }
        }
        if is_masked {
            blank(value);
        }
    }
}

/// Puts something of the same type in place of every value.
fn blank(value: &mut Json<'_>) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(blank),
        Json::Object(members) => members.iter_mut().for_each(|(_, value)| blank(value)),
        Json::Scalar(scalar) => {
            *scalar = match scalar.as_bytes().first() {
                Some(b'"') => stars(spelled(scalar).chars().count()).into(),
                Some(b't' | b'f') => Cow::Borrowed("false"),
                Some(b'n') => Cow::Borrowed("null"),
                _ if scalar.contains(['.', 'e', 'E']) => Cow::Borrowed("0.0"),
                _ => Cow::Borrowed("0"),
            };
        }
    }
}

/// A text of about the length: it tells a name from an essay, and no name from another.
fn stars(length: usize) -> String {
    let count = match length {
        0 => 0,
        1..=SHORT => 3,
        _ => 1 << length.ilog2(),
    };
    format!("\"{}\"", "*".repeat(count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(payload: &str, fields: &[&str]) -> (String, Vec<String>) {
        let mut mask = Mask::new(fields.iter().map(|field| field.parse().unwrap()).collect());
        let mut json = Json::parse(payload).unwrap();
        mask.apply(&mut json);
        let unmatched = mask.unmatched().into_iter().map(str::to_owned).collect();
        (json.compact(), unmatched)
    }

    #[test]
    fn a_name_is_masked_wherever_it_is_and_however_it_is_written() {
        let payload = r#"{"email":"a@b.c","lines":[{"\u0065mail":"x","n":1.50}],"to":{"email":{"a":["q"],"b":true}}}"#;
        assert_eq!(
            masked(payload, &["email"]),
            (
                r#"{"email":"***","lines":[{"\u0065mail":"***","n":1.50}],"to":{"email":{"a":["***"],"b":false}}}"#
                    .to_owned(),
                vec![]
            )
        );
    }

    #[test]
    fn a_name_is_masked_in_whatever_case_it_is_written() {
        let payload = r#"{"Email":"a@b.c","eMAIL":"d","É":{"Mail":"e"},"mail":"f"}"#;
        assert_eq!(
            masked(payload, &["email", "é.MAIL"]).0,
            r#"{"Email":"***","eMAIL":"***","É":{"Mail":"***"},"mail":"f"}"#
        );
        // A pointer names one place.
        assert_eq!(masked(payload, &["/email"]).1, ["/email"]);
    }

    #[test]
    fn dotted_names_say_what_they_are_inside_of_and_pointers_name_one_place() {
        let payload = r#"{"a":{"b":1,"l":[{"b":2.5}]},"b":3,"x/y":[4,5]}"#;
        assert_eq!(
            masked(payload, &["a.b"]).0,
            r#"{"a":{"b":0,"l":[{"b":2.5}]},"b":3,"x/y":[4,5]}"#
        );
        assert_eq!(
            masked(payload, &["a.l.b", "/x~1y/1", "/b"]).0,
            r#"{"a":{"b":1,"l":[{"b":0.0}]},"b":0,"x/y":[4,0]}"#
        );
    }

    #[test]
    fn a_field_that_is_nowhere_is_told() {
        let (_, unmatched) = masked(
            r#"{"email":"x"}"#,
            &["email", "emial", "/email/0", "x.email"],
        );
        assert_eq!(unmatched, ["emial", "/email/0", "x.email"]);
        let (_, unmatched) = masked(r#"{"to":{"email":"x"}}"#, &["to", "email"]);
        assert!(unmatched.is_empty(), "one inside the other is there, too");
    }

    #[test]
    fn types_and_rough_lengths_stay() {
        let payload = format!(
            r#"{{"m":["","short",{:?},-12,1e3,null,true]}}"#,
            "é".repeat(100)
        );
        let stars = "*".repeat(64);
        assert_eq!(
            masked(&payload, &["m"]).0,
            format!(r#"{{"m":["","***","{stars}",0,0.0,null,false]}}"#)
        );
    }

    #[test]
    fn odd_names_are_refused() {
        for bad in ["", "a..b", ".a", "a."] {
            assert!(bad.parse::<Field>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_masked_value_is_left(secret in "[b-y0-9]{4,40}", depth in 0_usize..5) {
            let inside = format!("{}\"{secret}\"{}", r#"[{"a":"#.repeat(depth), "}]".repeat(depth));
            let (text, unmatched) = masked(&format!("{{\"z\":{inside},\"k\":1}}"), &["z"]);
            prop_assert!(!text.contains(&secret) && unmatched.is_empty());
            let rest = ",\"k\":1}";
            prop_assert!(text.ends_with(rest));
        }
    }
}
