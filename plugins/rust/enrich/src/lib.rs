//! Adds to the payload what a service knows about it.
//!
//! Configuration: `url`, in which `{}` stands for the value of the payload's `field`; `into`, the name of the
//! field that the answer is put into. `token`, if given, is sent as a bearer token: what is configured
//! here is no secret of an endpoint, and this plugin can read it. An event without the field goes out as
//! it is, and so does one that the service does not know (404). The manifest lists the host under
//! `[grants]`: `http = ["api.example.com"]`.

use serde_json::Value;

wit_bindgen::generate!({
    path: "../../../wit/1.0.0",
    inline: "
        package example:enrich;
        world enrich {
            include wasmhook:plugin/transformer@1.0.0;
            import wasmhook:plugin/http-client@1.0.0;
        }
    ",
    world: "example:enrich/enrich",
    generate_all,
});

use exports::wasmhook::plugin::transform::{Guest, Verdict};
use wasmhook::plugin::config;
use wasmhook::plugin::http_client::{self, OutgoingRequest};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};

struct Enrich;

impl Guest for Enrich {
    fn transform(event: Event, _endpoint: Endpoint) -> Result<Verdict, Failure> {
        let setting = |key| {
            config::get(key).ok_or_else(|| failure(false, &format!("`{key}` is not configured")))
        };
        let (url, field, into) = (setting("url")?, setting("field")?, setting("into")?);
        let mut payload: Value = serde_json::from_slice(&event.payload)
            .map_err(|_| failure(false, "the payload is not JSON"))?;
        let Some(value) = payload.get(&field).and_then(Value::as_str) else {
            return Ok(deliver(event.payload));
        };
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        if let Some(token) = config::get("token") {
            headers.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        let answer = http_client::fetch(&OutgoingRequest {
            method: "GET".to_owned(),
            url: url.replace("{}", &percent_encoded(value)),
            headers,
            body: Vec::new(),
        })
        .map_err(|error| failure(true, &format!("no answer: {error}")))?;
        if answer.status == 404 {
            return Ok(deliver(event.payload));
        }
        let known: Value = serde_json::from_slice(&answer.body)
            .ok()
            .filter(|_| answer.status == 200)
            .ok_or_else(|| {
                failure(
                    true,
                    &format!("the service answered with status {}", answer.status),
                )
            })?;
        if let Value::Object(object) = &mut payload {
            object.insert(into, known);
        }
        let body = serde_json::to_vec(&payload);
        Ok(deliver(
            body.map_err(|_| failure(false, "the payload is not JSON"))?,
        ))
    }
}

/// The value as one segment of a path or one value of a query.
fn percent_encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn deliver(body: Vec<u8>) -> Verdict {
    Verdict::Deliver(Request {
        body,
        content_type: None,
        headers: Vec::new(),
    })
}

fn failure(retryable: bool, message: &str) -> Failure {
    Failure {
        retryable,
        message: message.to_owned(),
    }
}

export!(Enrich);
