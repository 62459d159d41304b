//! Blanks the fields that the configuration names and adds `"schema_version"`.
//!
//! Configuration: `fields`, the names of the fields separated by commas; a field is blanked at any
//! depth. `schema_version`, the value to add to an object, `1` if absent.

use serde_json::Value;

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "transformer" });

use exports::wasmhook::plugin::transform::{Guest, Verdict};
use wasmhook::plugin::config;
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};

/// What stands in place of a blanked value.
const BLANK: &str = "[redacted]";

struct Redact;

impl Guest for Redact {
    fn transform(event: Event, _endpoint: Endpoint) -> Result<Verdict, Failure> {
        let mut payload: Value = serde_json::from_slice(&event.payload).map_err(|_| not_json())?;
        let fields = config::get("fields").unwrap_or_default();
        let fields: Vec<&str> = fields.split(',').map(str::trim).collect();
        blank(&mut payload, &fields);
        if let Value::Object(object) = &mut payload {
            let version = config::get("schema_version").unwrap_or_else(|| "1".to_owned());
            object.insert("schema_version".to_owned(), Value::String(version));
        }
        Ok(Verdict::Deliver(Request {
            body: serde_json::to_vec(&payload).map_err(|_| not_json())?,
            content_type: None,
            headers: Vec::new(),
        }))
    }
}

/// Puts [`BLANK`] in place of every field in `fields`, wherever it is.
fn blank(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                if fields.contains(&name.as_str()) {
                    *inner = Value::String(BLANK.to_owned());
                } else {
                    blank(inner, fields);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| blank(item, fields)),
        _ => {}
    }
}

fn not_json() -> Failure {
    Failure {
        retryable: false,
        message: "the payload is not JSON".to_owned(),
    }
}

export!(Redact);
