//! What a receiver answered, as an author says it, for plugins that judge answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use wasmhook_delivery::Answer;

use crate::exit::{Coded, Exit};

/// The statuses that a receiver can end an exchange with.
const STATUSES: std::ops::RangeInclusive<u16> = 200..=599;
/// The longest file of answers, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// What `--answer` takes: one answer, or `@FILE` with one a line.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    One(Answer),
    File(PathBuf),
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some(file) => Ok(Self::File(file.into())),
            None => answer(text).map(Self::One),
        }
    }
}

impl Given {
    /// All the answers, with as much of their bodies as the host would read.
    pub(super) fn all(given: &[Self], response_bytes: usize) -> anyhow::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for given in given {
            match given {
                Self::One(answer) => answers.push(answer.clone()),
                Self::File(file) => answers.extend(read(file)?),
            }
        }
        for answer in &mut answers {
            answer.complete = answer.body.len() <= response_bytes;
            answer.body.truncate(response_bytes);
        }
        Ok(answers)
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Answer>> {
    super::must_exist(file)?;
    let cannot = || format!("cannot read {}", file.display());
    let refused = |words: String| Coded::new(Exit::Refused, format!("{}{words}", file.display()));
    if fs::metadata(file).with_context(cannot)?.len() > MAX_FILE {
        return Err(refused(format!(" is larger than {MAX_FILE} bytes")));
    }
    let text = fs::read_to_string(file).with_context(cannot)?;
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let answers = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            answer(line).map_err(|error| refused(format!(" line {}: {error}", index + 1)))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    if answers.is_empty() {
        return Err(refused(" holds no answer".to_owned()));
    }
    Ok(answers)
}

/// The form of an answer that is more than a status.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Box<RawValue>>,
}

fn answer(text: &str) -> Result<Answer, String> {
    let form = match text.trim().parse() {
        Ok(status) => Form {
            status,
            headers: BTreeMap::new(),
            body: None,
        },
        Err(_) => serde_json::from_str(text).map_err(|error| {
            // Which line of the file it is says who reads the file.
            let error = error.to_string().replace(" at line 1 column ", " at column ");
            format!(
                "expected a status, or JSON such as {{\"status\": 409, \"headers\": {{\"retry-after\": \"60\"}}, \
                 \"body\": {{\"ok\": false}}}}: {error}"
            )
        })?,
    };
    if !STATUSES.contains(&form.status) {
        return Err("field `status`: expected a number from 200 to 599".to_owned());
    }
    let headers = form.headers.iter().map(|(name, value)| {
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        header
            .zip(HeaderValue::from_str(value).ok())
            .ok_or("field `headers`: expected names and values that HTTP allows")
    });
    Ok(Answer {
        status: form.status,
        headers: headers.collect::<Result<HeaderMap, _>>()?,
        body: body(form.body.as_deref())?,
        complete: true,
    })
}

/// A text is the body; anything else is the body's JSON, to the byte.
fn body(given: Option<&RawValue>) -> Result<Bytes, String> {
    let json = given.map(RawValue::get).unwrap_or_default();
    if !json.starts_with('"') {
        return Ok(json.to_owned().into());
    }
    serde_json::from_str::<String>(json)
        .map(Into::into)
        .map_err(|_| "field `body`: expected a text, or any other JSON".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_or_all_of_it() {
        let bare = answer("503").unwrap();
        assert_eq!((bare.status, bare.body.len()), (503, 0));
        let whole = r#"{"status": 429, "headers": {"Retry-After": "60"}, "body": {"ok": 1.0}}"#;
        let whole = answer(whole).unwrap();
        assert_eq!(whole.headers["retry-after"], "60");
        assert_eq!(&whole.body[..], br#"{"ok": 1.0}"#);
        let text = answer(r#"{"status": 200, "body": "a\nb"}"#).unwrap();
        assert_eq!(&text.body[..], b"a\nb");
        for (bad, words) in [
            ("99", "from 200 to 599"),
            ("soon", "expected a status, or JSON"),
            ("soon", "expected value at column 1"),
            (r#"{"body": 1}"#, "missing field `status`"),
            (
                r#"{"status": 200, "headers": {"a b": ""}}"#,
                "field `headers`",
            ),
        ] {
            let error = answer(bad).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn a_body_is_read_as_far_as_the_host_reads_it() {
        let given: Given = r#"{"status": 200, "body": "abcdef"}"#.parse().unwrap();
        let cut = Given::all(std::slice::from_ref(&given), 4).unwrap();
        assert_eq!((&cut[0].body[..], cut[0].complete), (&b"abcd"[..], false));
        let whole = Given::all(&[given], 6).unwrap();
        assert!(whole[0].complete);
    }
}
