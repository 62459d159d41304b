//! Sends an event to the endpoint that a field of its payload names.
//!
//! Configuration: `field`, the name of the field (dots go deeper: `customer.region`); `map.VALUE`,
//! the endpoint for one value of the field, which is itself the endpoint's id where there is no such
//! entry; `default`, the endpoint when the field is absent. With no default, such an event goes to
//! the subscribed endpoints as if there were no resolver.

use serde_json::Value;

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "resolver" });

use exports::wasmhook::plugin::resolve::{Choice, Guest, Mode, Resolution};
use wasmhook::plugin::config;
use wasmhook::plugin::types::{Endpoint, Event, Failure};

struct Route;

impl Guest for Route {
    fn resolve(event: Event, _subscribed: Vec<Endpoint>) -> Result<Resolution, Failure> {
        let field = config::get("field")
            .ok_or_else(|| permanent("the configuration key `field` is missing"))?;
        let payload: Value = serde_json::from_slice(&event.payload)
            .map_err(|_| permanent("the payload is not JSON"))?;
        let named = find(&payload, &field)
            .map(|value| config::get(&format!("map.{value}")).unwrap_or_else(|| value.to_owned()));
        Ok(match named.or_else(|| config::get("default")) {
            Some(id) => Resolution {
                mode: Mode::Replace,
                choices: vec![Choice::Registered(id)],
            },
            None => Resolution {
                mode: Mode::Add,
                choices: Vec::new(),
            },
        })
    }
}

/// The text at `path`, whose parts are separated by dots.
fn find<'a>(payload: &'a Value, path: &str) -> Option<&'a str> {
    path.split('.')
        .try_fold(payload, |value, part| value.get(part))?
        .as_str()
}

fn permanent(message: &str) -> Failure {
    Failure {
        retryable: false,
        message: message.to_owned(),
    }
}

export!(Route);
