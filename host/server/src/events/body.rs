//! The events in the body of a request.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde_json::value::RawValue;
use wasmhook_core::{Error, EventDraft};

/// The most events in one request.
pub const MAX_EVENTS: usize = 1000;

/// The drafts of a body, and whether it was a batch.
type Drafts = (Vec<Result<EventDraft, Error>>, bool);

/// At least one draft, and at most [`MAX_EVENTS`]; otherwise a code and a sentence.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Drafts, (&'static str, String)> {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
    let (drafts, batch): Drafts = match media.as_deref() {
        Some("application/x-ndjson" | "application/jsonl") => {
            let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            (
                lines
                    .filter(|line| !line.is_empty())
                    .map(EventDraft::from_json)
                    .collect(),
                true,
            )
        }
        None | Some("application/json") if body.trim_ascii_start().first() == Some(&b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_slice(body).map_err(|error| ("invalid_json", position(&error)))?;
            (
                items
                    .into_iter()
                    .map(|item| EventDraft::from_json(item.get().as_bytes()))
                    .collect(),
                true,
            )
        }
        None | Some("application/json") => (vec![EventDraft::from_json(body)], false),
        Some(_) => {
            return Err((
                "unsupported_media_type",
                "expected the content type application/json or application/x-ndjson".to_owned(),
            ));
        }
    };
    match drafts.len() {
        0 => Err(("empty", "expected at least one event".to_owned())),
        1..=MAX_EVENTS => Ok((drafts, batch)),
        more => Err((
            "too_many_events",
            format!("expected at most {MAX_EVENTS} events, found {more}"),
        )),
    }
}

fn position(error: &serde_json::Error) -> String {
    format!(
        "expected a JSON array of events, which ends being one at line {} column {}",
        error.line(),
        error.column()
    )
}
