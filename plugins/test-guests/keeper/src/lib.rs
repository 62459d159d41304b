//! Does to its key-value store what the payload says, an array of steps such as `["set", "key", "value", 60]`,
//! and answers with the array of what came of them.

use serde_json::{Value, json};

wit_bindgen::generate!({
    path: "../../../wit/1.0.0",
    inline: "
        package test:keeper;
        world keeper {
            include wasmhook:plugin/transformer@1.0.0;
            import wasmhook:plugin/key-value@1.0.0;
        }
    ",
    world: "test:keeper/keeper",
    generate_all,
});

use exports::wasmhook::plugin::transform::{Guest, Verdict};
use wasmhook::plugin::key_value::{self, Error};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};

struct Keeper;

impl Guest for Keeper {
    fn transform(event: Event, _endpoint: Endpoint) -> Result<Verdict, Failure> {
        let steps: Vec<Vec<Value>> =
            serde_json::from_slice(&event.payload).map_err(|error| Failure {
                retryable: false,
                message: error.to_string(),
            })?;
        let results: Vec<Value> = steps
            .iter()
            .map(|step| run(step).unwrap_or_else(|error| json!(format!("{error:?}"))))
            .collect();
        Ok(Verdict::Deliver(Request {
            body: serde_json::to_vec(&results).unwrap_or_default(),
            content_type: None,
            headers: Vec::new(),
        }))
    }
}

fn run(step: &[Value]) -> Result<Value, Error> {
    let text = |at: usize| step.get(at).and_then(Value::as_str);
    let bytes = |at| text(at).map(str::as_bytes);
    let ttl = |at: usize| {
        let seconds = step.get(at).and_then(Value::as_u64)?;
        u32::try_from(seconds).ok()
    };
    let key = text(1).unwrap_or_default();
    Ok(match text(0) {
        Some("get") => {
            json!(key_value::get(key)?.map(|value| String::from_utf8_lossy(&value).into_owned()))
        }
        Some("set") => json!(key_value::set(key, bytes(2).unwrap_or_default(), ttl(3))?),
        Some("delete") => json!(key_value::delete(key)?),
        Some("increment") => {
            let by = step.get(2).and_then(Value::as_i64).unwrap_or(1);
            json!(key_value::increment(key, by, ttl(3))?)
        }
        Some("swap") => json!(key_value::compare_and_swap(
            key,
            bytes(2),
            bytes(3),
            ttl(4)
        )?),
        Some("grow") => {
            let size = step.get(2).and_then(Value::as_u64).unwrap_or_default();
            let value = vec![b'x'; usize::try_from(size).unwrap_or_default()];
            json!(key_value::set(key, &value, None)?)
        }
        _ => json!("unknown step"),
    })
}

export!(Keeper);
