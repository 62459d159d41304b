//! JSON as it is written: numbers, escapes, the order of names and names that come twice stay as they
//! are, which they do not in `serde_json::Value`. For showing payloads, and for changing parts of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Arrays and objects inside one another; what goes deeper is not taken apart.
const DEPTH: usize = 128;

/// A JSON text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json<'a> {
    /// A text, a number, `true`, `false` or `null`, as it is written.
    Scalar(Cow<'a, str>),
    Array(Vec<Self>),
    /// Names, as they are written, with their values.
    Object(Vec<(&'a str, Self)>),
}

/// Why a text could not be taken apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonTextError {
    #[error("it is not JSON")]
    Syntax(#[from] serde_json::Error),
    #[error("it is nested more than {DEPTH} levels deep")]
    TooDeep,
}

impl<'a> Json<'a> {
    /// Takes a text apart.
    pub(crate) fn parse(text: &'a str) -> Result<Self, JsonTextError> {
        Self::parse_at(text, 0)
    }

    fn parse_at(text: &'a str, depth: usize) -> Result<Self, JsonTextError> {
        let text = serde_json::from_str::<&RawValue>(text)?.get().trim();
        match text.as_bytes().first() {
            Some(b'[' | b'{') if depth == DEPTH => Err(JsonTextError::TooDeep),
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)?
                .into_iter()
                .map(|item| Self::parse_at(item.get(), depth + 1))
                .collect::<Result<_, _>>()
                .map(Self::Array),
            Some(b'{') => serde_json::from_str::<Members<'_>>(text)?
                .0
                .into_iter()
                .map(|(name, value)| Ok((name, Self::parse_at(value, depth + 1)?)))
                .collect::<Result<_, _>>()
                .map(Self::Object),
            _ => Ok(Self::Scalar(Cow::Borrowed(text))),
        }
    }

    /// On one line, without spaces.
    pub(crate) fn compact(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, None);
        text
    }

    /// One value a line, indented.
    pub(crate) fn pretty(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Some(0));
        text.push('\n');
        text
    }

    fn write(&self, text: &mut String, level: Option<usize>) {
        match self {
            Self::Scalar(scalar) => text.push_str(scalar),
            Self::Array(items) => {
                Self::write_all(text, level, ['[', ']'], items, |text, item, level| {
                    item.write(text, level);
                });
            }
            Self::Object(members) => {
                Self::write_all(
                    text,
                    level,
                    ['{', '}'],
                    members,
                    |text, (name, value), level| {
                        text.push_str(name);
                        text.push_str(if level.is_some() { ": " } else { ":" });
                        value.write(text, level);
                    },
                );
            }
        }
    }

    fn write_all<T>(
        text: &mut String,
        level: Option<usize>,
        [open, close]: [char; 2],
        items: &[T],
        write: impl Fn(&mut String, &T, Option<usize>),
    ) {
        let inside = level.map(|level| level + 1);
        let new_line = |text: &mut String, level: Option<usize>| {
            if let Some(level) = level {
                text.push('\n');
                text.extend(std::iter::repeat_n("  ", level));
            }
        };
        text.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            new_line(text, inside);
            write(text, item, inside);
        }
        if !items.is_empty() {
            new_line(text, level);
        }
        text.push(close);
    }
}

/// What a name says: with its escapes undone.
pub(crate) fn spelled(name: &str) -> Cow<'_, str> {
    // It was read as a name before, so it is one.
    serde_json::from_str(name).map_or(Cow::Borrowed(name), Cow::Owned)
}

/// The names of an object with their values, in order, each as it is written.
struct Members<'a>(Vec<(&'a str, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((name.get(), value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = " { \"z\" : [ 1.00, 12345678901234567890123,-1.5e-7 ],\n\"a\\u0062\":{},\"z\": \"\\u00e9 x\" ,\"l\":[] } ";

    #[test]
    fn everything_but_white_space_stays_as_it_was_written() {
        assert_eq!(
            Json::parse(WRITTEN).unwrap().compact(),
            r#"{"z":[1.00,12345678901234567890123,-1.5e-7],"a\u0062":{},"z":"\u00e9 x","l":[]}"#
        );
        assert_eq!(
            Json::parse(r#"{"a":[1.0,{"b":null}],"c":[]}"#)
                .unwrap()
                .pretty(),
            "{\n  \"a\": [\n    1.0,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": []\n}\n"
        );
        assert_eq!(spelled(r#""a\u0062""#), "ab");
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        assert!(matches!(Json::parse("{"), Err(JsonTextError::Syntax(_))));
        assert!(matches!(
            Json::parse("{} {}"),
            Err(JsonTextError::Syntax(_))
        ));
        let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Json::parse(&deep(DEPTH)).is_ok());
        assert!(matches!(
            Json::parse(&deep(DEPTH + 1)),
            Err(JsonTextError::TooDeep)
        ));
        assert!(Json::parse(&deep(100_000)).is_err());
    }
}
