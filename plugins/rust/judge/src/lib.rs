//! Takes an answer for what its body says: for receivers that answer 200 with an error in a JSON object,
//! such as `{"ok": false, "error": "rate_limited"}`, or 409 for an event that they have already.
//!
//! Configuration: `accepted`, statuses to take as accepted, separated by commas. `ok`, the name of the
//! field that is `false` when an accepted status means nothing; without it bodies are not read.
//! `error`, the name of the field with the code of the error. `retry`, the codes after which the
//! delivery is tried again, separated by commas, in `wait` seconds if that is given; after any other
//! it is given up.

use serde_json::Value;

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "classifier" });

use exports::wasmhook::plugin::classify::{Guest, Judgement, Response, Verdict};
use wasmhook::plugin::config;
use wasmhook::plugin::types::{Endpoint, Event, Failure};

struct Judge;

impl Guest for Judge {
    fn classify(
        _event: Event,
        _endpoint: Endpoint,
        response: Response,
        so_far: Judgement,
    ) -> Result<Verdict, Failure> {
        if listed("accepted", &response.status.to_string()) {
            return Ok(because(Judgement::Accepted, "the receiver has it already"));
        }
        let unchanged = Verdict {
            judgement: so_far,
            reason: None,
        };
        let (Judgement::Accepted, Some(ok)) = (so_far, config::get("ok")) else {
            return Ok(unchanged);
        };
        let body: Value = serde_json::from_slice(&response.body).map_err(|_| not_json())?;
        if body.get(ok) != Some(&Value::Bool(false)) {
            return Ok(unchanged);
        }
        let code = config::get("error")
            .and_then(|name| Some(body.get(name)?.as_str()?.to_owned()))
            .unwrap_or_default();
        if listed("retry", &code) {
            let wait = config::get("wait").and_then(|seconds| seconds.parse().ok());
            Ok(because(
                Judgement::Retry(wait),
                "its body asks to try again",
            ))
        } else {
            Ok(because(Judgement::GiveUp, "its body says that it failed"))
        }
    }
}

/// Whether a key of the configuration lists this word.
fn listed(key: &str, word: &str) -> bool {
    config::get(key).is_some_and(|list| list.split(',').any(|item| item.trim() == word))
}

fn because(judgement: Judgement, reason: &str) -> Verdict {
    Verdict {
        judgement,
        reason: Some(reason.to_owned()),
    }
}

/// The host then judges the answer as if this plugin were not there.
fn not_json() -> Failure {
    Failure {
        retryable: false,
        message: "the answer is not JSON".to_owned(),
    }
}

export!(Judge);
