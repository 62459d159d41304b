//! The events in the body of a request.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest as _, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::timeout;
use wasmhook_core::{Error, EventDraft};

/// The most events in one request.
pub const MAX_EVENTS: usize = 1000;

/// The drafts of a body, and whether it was a batch.
type Drafts = (Vec<Result<EventDraft, Error>>, bool);

/// Why a body as a whole gives no events.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Unreadable {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn too_large(max_bytes: usize) -> Self {
        let words = format!("expected a body of at most {max_bytes} bytes (http.max_body_bytes)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", words)
    }
}

/// The whole body, which may be so large and take so long to come.
pub(super) async fn gather(
    request: Request,
    max_bytes: usize,
    patience: Duration,
) -> Result<Bytes, Unreadable> {
    // One that says beforehand that it is too large need not be read for that.
    if request.body().size_hint().lower() > max_bytes as u64 {
        return Err(Unreadable::too_large(max_bytes));
    }
    match timeout(patience, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
            Err(Unreadable::too_large(max_bytes))
        }
        Ok(Err(_)) => Err(Unreadable::bad(
            "broken_body",
            "the body broke off, or is not framed as HTTP wants it",
        )),
        Err(_) => Err(Unreadable::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow_body",
            format!("the body did not come within {patience:?}"),
        )),
    }
}

/// At least one draft, and at most [`MAX_EVENTS`].
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Drafts, Unreadable> {
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Unreadable::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_content_encoding",
            "expected a body that is not compressed",
        ));
    }
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
                    .map(EventDraft::from_json_line)
                    .collect(),
                true,
            )
        }
        None | Some("application/json") if body.trim_ascii_start().first() == Some(&b'[') => {
            let items: Vec<&RawValue> = serde_json::from_slice(body)
                .map_err(|error| Unreadable::bad("invalid_json", position(&error)))?;
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
            return Err(Unreadable::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "expected the content type application/json or application/x-ndjson",
            ));
        }
    };
    match drafts.len() {
        0 => Err(Unreadable::bad("empty", "expected at least one event")),
        1..=MAX_EVENTS => Ok((drafts, batch)),
        more => Err(Unreadable::new(
            StatusCode::PAYLOAD_TOO_LARGE,
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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    /// How the gathering of a body of at most eight bytes ends.
    async fn refused(request: Request) -> (u16, &'static str) {
        let gathered = gather(request, 8, Duration::from_millis(50)).await;
        let refused = gathered.unwrap_err();
        (refused.status.as_u16(), refused.code)
    }

    #[tokio::test]
    async fn a_body_is_gathered_up_to_the_limit() {
        let whole = Request::new(Body::from("12345678"));
        let gathered = gather(whole, 8, Duration::from_secs(60)).await;
        assert_eq!(gathered.unwrap(), "12345678");
        let larger = Request::new(Body::from("123456789"));
        assert_eq!(refused(larger).await, (413, "body_too_large"));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        // Half of it, and then nothing.
        struct Silent(bool);
        impl axum::body::HttpBody for Silent {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>>
            {
                if std::mem::replace(&mut self.0, true) {
                    return std::task::Poll::Pending;
                }
                let half = hyper::body::Frame::data(Bytes::from_static(b"{"));
                std::task::Poll::Ready(Some(Ok(half)))
            }
        }
        let silent = Request::new(Body::new(Silent(false)));
        assert_eq!(refused(silent).await, (408, "slow_body"));
    }

    #[test]
    fn a_compressed_body_is_refused_as_such() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let refused = read(&headers, b"\x1f\x8b").unwrap_err();
        assert_eq!(refused.code, "unsupported_content_encoding");
        headers.insert(CONTENT_ENCODING, "identity".parse().unwrap());
        read(&headers, b"{}").unwrap();
    }
}
