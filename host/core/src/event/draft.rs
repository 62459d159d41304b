//! What producers push, and the checks that make events of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Event, EventType, Payload};
use crate::error::{Context, Error, Result};
use crate::ids::{EventId, OrderingKey, TenantId};

/// The furthest ahead that an event may be scheduled: a year. It is kept, payload and all, until then,
/// and further plans are better kept by who made them.
pub const MAX_DELAY: Duration = Duration::from_hours(24 * 366);

/// What a producer pushed, before any check. Also the JSON form of `POST /v1/events` and of one
/// line of `wasmhook event push`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventDraft {
    /// See [`Event::id`].
    #[serde(default)]
    pub id: String,
    /// See [`Event::tenant_id`]. `tenant_id` is understood too.
    #[serde(default, alias = "tenant_id")]
    pub tenant: String,
    /// See [`Event::event_type`].
    #[serde(default, rename = "type")]
    pub event_type: String,
    /// JSON as text.
    #[serde(default, deserialize_with = "raw_payload")]
    pub payload: Bytes,
    /// RFC 3339 time with an offset; missing means now.
    #[serde(default)]
    pub occurred_at: Option<String>,
    /// RFC 3339 time with an offset, at most [`MAX_DELAY`] ahead; missing or past means now.
    #[serde(default)]
    pub deliver_at: Option<String>,
    /// See [`Event::ordering_key`].
    #[serde(default)]
    pub ordering_key: Option<String>,
    /// What is wrong with the form that it came in, such as a field that is unknown; it is refused for that.
    /// JSON that is wrong gives no draft, so only sources that read field by field set it.
    #[serde(skip)]
    pub fault: Option<Context>,
}

/// The fields by name, as producers write them.
const FIELDS: &str = "id, tenant, type, payload, occurred_at, deliver_at, ordering_key";
/// The longest name of an unknown field that is repeated to its producer.
const MAX_NAME: usize = 32;

impl fmt::Debug for EventDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDraft")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("event_type", &self.event_type)
            .field("payload_bytes", &self.payload.len())
            .field("occurred_at", &self.occurred_at)
            .field("deliver_at", &self.deliver_at)
            .field("ordering_key", &self.ordering_key)
            .field("fault", &self.fault)
            .finish()
    }
}

fn raw_payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text: Box<str> = Box::<RawValue>::deserialize(deserializer)?.into();
    Ok(Bytes::from(text.into_string()))
}

impl EventDraft {
    /// Normalises and validates. `now` is the time an event without `occurred_at` gets, and what
    /// `deliver_at` is ahead of; `max_payload` is the largest payload accepted, in bytes.
    pub fn accept(self, now: Timestamp, max_payload: usize) -> Result<Event> {
        if let Some(fault) = self.fault {
            return Err(Error::InvalidEvent(fault));
        }
        let tenant_id = TenantId::new(&self.tenant)?;
        let event_type = EventType::new(&self.event_type)?;
        let id = EventId::new(&self.id)?;
        if self.payload.len() > max_payload {
            return Err(Error::event_field(
                "payload",
                &format!(
                    "expected at most {max_payload} bytes, found {}",
                    self.payload.len()
                ),
            ));
        }
        let payload = Payload::new(self.payload)?;
        let occurred_at = time("occurred_at", self.occurred_at.as_deref())?.unwrap_or(now);
        let deliver_at = match time("deliver_at", self.deliver_at.as_deref())? {
            Some(at) if at > now => Some(schedulable(at, now)?),
            _ => None,
        };
        let ordering_key = match self.ordering_key.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(key) => Some(OrderingKey::new(key)?),
        };
        Ok(Event {
            id,
            tenant_id,
            event_type,
            payload,
            occurred_at,
            deliver_at,
            ordering_key,
        })
    }

    /// What is wrong with a draft that has a field of this name.
    ///
    /// It is not passed over: it may be one of another version, or a misspelt one, that puts a delivery off or
    /// in order, and what went out without cannot be taken back.
    pub fn unknown_field(name: &str) -> Context {
        Self::unknown(name, "")
    }

    /// What is wrong with a draft that has this field, of those that it knows, more than once.
    pub fn repeated_field(name: &str) -> Context {
        Self::repeated(name, "")
    }

    fn unknown(name: &str, place: &str) -> Context {
        // Where values stand in the places of names, they are content.
        let is_name = (1..=MAX_NAME).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        Context::words(if is_name {
            format!("unknown field `{name}`{place}; expected {FIELDS}")
        } else {
            format!("an unknown field{place}; expected {FIELDS}")
        })
    }

    fn repeated(name: &str, place: &str) -> Context {
        Context::field(name, &format!("expected once, found again{place}"))
    }

    /// Reads a draft from JSON. The error names the field or the position, never the content. A byte order mark, which
    /// some editors put before the first line of a file, is passed over.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        Self::read(json).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            Self::json_error(&error, &place)
        })
    }

    /// As [`Self::from_json`], from one line of several, whose number the caller knows.
    pub fn from_json_line(line: &[u8]) -> Result<Self> {
        Self::read(line)
            .map_err(|error| Self::json_error(&error, &format!(" at column {}", error.column())))
    }

    fn read(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json))
    }

    /// Turns a JSON error about a draft into one that names field or position and no content.
    fn json_error(error: &serde_json::Error, place: &str) -> Error {
        if error.classify() != serde_json::error::Category::Data {
            let words = format!("expected a JSON object, which ends being one{place}");
            return Error::InvalidEvent(Context::words(words));
        }
        // Two messages are worth passing on, for they name a key; the others may quote content.
        let text = error.to_string();
        let quoted = |start: &str| text.strip_prefix(start)?.split('`').next();
        let context = if let Some(name) = quoted("unknown field `") {
            Self::unknown(name, place)
        } else if let Some(name) = quoted("duplicate field `") {
            Self::repeated(name, place)
        } else {
            Context::words(format!(
                "a field of the wrong type{place}; expected texts for id, tenant, type, occurred_at, deliver_at, ordering_key and any JSON for payload"
            ))
        };
        Error::InvalidEvent(context)
    }
}

/// A field that holds a time, if it holds anything.
fn time(field: &'static str, text: Option<&str>) -> Result<Option<Timestamp>> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Error::event_field(
                field,
                "expected an RFC 3339 time with an offset, such as 2026-01-31T09:30:00Z",
            )
        }),
    }
}

/// A time ahead of `now` that deliveries may wait for, in whole milliseconds and never earlier.
fn schedulable(at: Timestamp, now: Timestamp) -> Result<Timestamp> {
    let refused = || {
        Error::event_field(
            "deliver_at",
            "expected a time at most a year (366 days) ahead",
        )
    };
    let last = now.saturating_add(MAX_DELAY).map_err(|_| refused())?;
    if at > last {
        return Err(refused());
    }
    let whole = at.as_nanosecond().div_euclid(1_000_000)
        + i128::from(at.as_nanosecond().rem_euclid(1_000_000) > 0);
    Timestamp::from_nanosecond(whole * 1_000_000).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> EventDraft {
        EventDraft {
            id: " evt_1 ".into(),
            tenant: " acme ".into(),
            event_type: " invoice.paid ".into(),
            payload: Bytes::from_static(b" { \"a\" : 1.0 } "),
            ..EventDraft::default()
        }
    }

    #[test]
    fn ids_and_type_are_trimmed_and_the_payload_is_not() {
        let event = draft().accept(Timestamp::UNIX_EPOCH, 1024).unwrap();
        assert_eq!(
            (event.id.as_str(), event.tenant_id.as_str()),
            ("evt_1", "acme")
        );
        assert_eq!(event.event_type.as_str(), "invoice.paid");
        assert_eq!(event.payload.bytes().as_ref(), b" { \"a\" : 1.0 } ");
        assert_eq!(event.occurred_at, Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn occurred_at_is_normalised_to_utc() {
        let event = EventDraft {
            occurred_at: Some("2026-03-01T12:00:00+02:00".into()),
            ..draft()
        }
        .accept(Timestamp::UNIX_EPOCH, 1024)
        .unwrap();
        assert_eq!(event.occurred_at.to_string(), "2026-03-01T10:00:00Z");
    }

    #[test]
    fn a_scheduled_event_keeps_its_time_in_whole_milliseconds() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let scheduled = |text: &str| {
            EventDraft {
                deliver_at: Some(text.into()),
                ..draft()
            }
            .accept(now, 1024)
            .map(|event| event.deliver_at.map(|at| at.to_string()))
            .map_err(|error| error.to_string())
        };
        let later = "2026-03-01T10:00:00.001Z";
        assert_eq!(scheduled(later), Ok(Some(later.to_owned())));
        assert_eq!(
            scheduled("2026-03-01T13:00:00.0010001+02:00"),
            Ok(Some("2026-03-01T11:00:00.002Z".to_owned()))
        );
        for past in ["", "  ", "2026-03-01T10:00:00Z", "1999-12-31T00:00:00Z"] {
            assert_eq!(scheduled(past), Ok(None), "{past:?}");
        }
        let year = "2027-03-02T10:00:00Z";
        assert_eq!(scheduled(year), Ok(Some(year.to_owned())));
        for far in ["2027-03-02T10:00:00.001Z", "9999-01-01T00:00:00Z"] {
            assert_eq!(
                scheduled(far).unwrap_err(),
                "invalid webhook event: field `deliver_at`: expected a time at most a year (366 days) ahead"
            );
        }
        let error = scheduled("tomorrow").unwrap_err();
        assert!(
            error.contains("field `deliver_at`: expected an RFC 3339 time"),
            "{error}"
        );
    }

    #[test]
    fn an_ordering_key_is_trimmed_and_checked() {
        let keyed = |text: &str| {
            EventDraft {
                ordering_key: Some(text.into()),
                ..draft()
            }
            .accept(Timestamp::UNIX_EPOCH, 1024)
            .map(|event| event.ordering_key.map(String::from))
        };
        assert_eq!(keyed(" order-7 ").unwrap().as_deref(), Some("order-7"));
        assert_eq!(keyed(" ").unwrap(), None);
        for bad in ["a\0b", &"x".repeat(257)] {
            let error = keyed(bad).unwrap_err().to_string();
            assert!(error.contains("field `ordering_key`"), "{error}");
        }
    }

    #[test]
    fn each_missing_field_is_named() {
        type Clear = fn(&mut EventDraft);
        let cases: [(Clear, &str); 4] = [
            (|d| d.id.clear(), "`id`"),
            (|d| d.tenant.clear(), "`tenant`"),
            (|d| d.event_type.clear(), "`type`"),
            (|d| d.payload.clear(), "`payload`"),
        ];
        for (clear, field) in cases {
            let mut draft = draft();
            clear(&mut draft);
            let error = draft.accept(Timestamp::UNIX_EPOCH, 1024).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("invalid webhook event: field "),
                "{error}"
            );
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn a_payload_above_the_limit_names_the_limit() {
        let error = draft().accept(Timestamp::UNIX_EPOCH, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid webhook event: field `payload`: expected at most 5 bytes, found 15"
        );
    }

    #[test]
    fn json_errors_name_the_field_and_no_content() {
        let error = EventDraft::from_json(br#"{"id":"1","tenent":"acme"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `tenent`"), "{error}");
        let error = EventDraft::from_json(br#"{"id":"1","hunter 2":"acme"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("an unknown field at line 1") && !error.contains("hunter"),
            "{error}"
        );
        let error = EventDraft::from_json(br#"{"id":"hunter2","tenant":"#)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let error = EventDraft::from_json(br#"{"id":["hunter2"]}"#)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_before_the_json_is_passed_over() {
        let json = "\u{feff}{\"id\":\"1\",\"tenant\":\"acme\",\"type\":\"a.b\",\"payload\":{}}";
        let draft = EventDraft::from_json(json.as_bytes()).unwrap();
        assert_eq!(draft.tenant, "acme");
    }

    #[test]
    fn what_is_wrong_in_one_line_of_several_is_told_by_its_column() {
        for (line, words) in [
            (
                "{\"id\"",
                "expected a JSON object, which ends being one at column 5",
            ),
            (
                "{\"ID\":1}",
                "unknown field `ID` at column 5; expected id, ",
            ),
            (
                "{\"id\":1}",
                "a field of the wrong type at column 7; expected texts",
            ),
        ] {
            let error = EventDraft::from_json_line(line.as_bytes()).unwrap_err();
            let words = format!("invalid webhook event: {words}");
            assert!(error.to_string().starts_with(&words), "{line}: {error}");
        }
    }

    #[test]
    fn a_key_that_is_given_twice_is_named() {
        for (json, field) in [
            (r#"{"id":"hunter2","id":"hunter2"}"#, "id"),
            (r#"{"tenant":"a","tenant_id":"a"}"#, "tenant"),
            (r#"{"type":"a","type":"b"}"#, "type"),
            (r#"{"payload":1,"payload":2}"#, "payload"),
            (
                r#"{"deliver_at":"hunter2","deliver_at":null}"#,
                "deliver_at",
            ),
        ] {
            let error = EventDraft::from_json(json.as_bytes())
                .unwrap_err()
                .to_string();
            let words = format!(
                "invalid webhook event: field `{field}`: expected once, found again at line 1 column "
            );
            assert!(error.starts_with(&words), "{json}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        // What a payload holds is the tenant's affair.
        let payload = br#"{"payload":{"a":1,"a":2}}"#;
        let draft = EventDraft::from_json(payload).unwrap();
        assert_eq!(draft.payload, r#"{"a":1,"a":2}"#);
    }

    #[test]
    fn a_draft_of_the_wrong_form_is_refused_for_that() {
        let refused = |fault: Context| {
            let fault = Some(fault);
            let draft = EventDraft { fault, ..draft() };
            let refused = draft.accept(Timestamp::UNIX_EPOCH, 1024);
            refused.unwrap_err().to_string()
        };
        assert_eq!(
            refused(EventDraft::unknown_field("deliver-at")),
            "invalid webhook event: unknown field `deliver-at`; expected id, tenant, type, payload, occurred_at, deliver_at, ordering_key"
        );
        for content in ["", "hunter 2", "{\"total\":1}", &"x".repeat(33)] {
            let told = refused(EventDraft::unknown_field(content));
            assert!(
                told.starts_with("invalid webhook event: an unknown field; expected id"),
                "{told}"
            );
        }
        assert_eq!(
            refused(EventDraft::repeated_field("tenant")),
            "invalid webhook event: field `tenant`: expected once, found again"
        );
    }

    #[test]
    fn debug_prints_hold_no_payload() {
        let event = EventDraft {
            payload: Bytes::from_static(b"\"hunter2\""),
            ..draft()
        };
        assert!(!format!("{event:?}").contains("hunter2"));
        let event = event.accept(Timestamp::UNIX_EPOCH, 1024).unwrap();
        assert!(!format!("{event:?}").contains("hunter2"));
    }
}
