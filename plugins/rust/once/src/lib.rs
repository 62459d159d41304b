//! Sends the same thing to an endpoint only once in a while: of events that agree in a field, the first
//! goes out, and the others are skipped until so many seconds have passed.
//!
//! Configuration: `field`, the name of the field of the payload; `seconds`, 3600 if absent. Events that
//! lack the field go out. The manifest says `key_value = true` under `[grants]`.

use serde_json::Value;

wit_bindgen::generate!({
    path: "../../../wit/1.0.0",
    inline: "
        package example:once;
        world once {
            include wasmhook:plugin/transformer@1.0.0;
            import wasmhook:plugin/key-value@1.0.0;
        }
    ",
    world: "example:once/once",
    generate_all,
});

use exports::wasmhook::plugin::transform::{Guest, Verdict};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};
use wasmhook::plugin::{config, key_value};

struct Once;

impl Guest for Once {
    fn transform(event: Event, endpoint: Endpoint) -> Result<Verdict, Failure> {
        let field = config::get("field").unwrap_or_default();
        let seconds = config::get("seconds").and_then(|text| text.parse().ok());
        let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        let Some(value) = payload.get(&field) else {
            return Ok(deliver(event.payload));
        };
        // A key has 256 bytes at most.
        let key = format!(
            "once/{}/{:016x}",
            endpoint.id,
            fnv1a(value.to_string().as_bytes())
        );
        let me = event.id.as_bytes();
        let first =
            key_value::compare_and_swap(&key, None, Some(me), Some(seconds.unwrap_or(3600)))
                .map_err(failed)?;
        // A retry of the event that came first finds its own id, and goes out again.
        if first
            || key_value::get(&key)
                .map_err(failed)?
                .is_none_or(|id| id == me)
        {
            return Ok(deliver(event.payload));
        }
        Ok(Verdict::Skip(format!(
            "another event with the same {field} went out before"
        )))
    }
}

fn deliver(body: Vec<u8>) -> Verdict {
    Verdict::Deliver(Request {
        body,
        content_type: None,
        headers: Vec::new(),
    })
}

fn failed(error: key_value::Error) -> Failure {
    Failure {
        retryable: true,
        message: format!("the key-value store: {error}"),
    }
}

/// A hash that is the same on every host, where the standard library's is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

export!(Once);
