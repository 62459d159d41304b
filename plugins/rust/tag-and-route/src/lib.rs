//! Keeps the events of a region in that region: one component that exports both interfaces.
//!
//! As a resolver it adds the endpoint `<region>-archive` for an event whose payload has a `region`.
//! As a transformer it tags what is sent with a header `x-region`, and skips an endpoint whose id
//! begins with another region of the configuration key `regions` (separated by commas).

use serde_json::Value;

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "plugin" });

use exports::wasmhook::plugin::resolve::{self, Choice, Mode, Resolution};
use exports::wasmhook::plugin::transform::{self, Verdict};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};
use wasmhook::plugin::{config, log};

struct TagAndRoute;

impl resolve::Guest for TagAndRoute {
    fn resolve(event: Event, _subscribed: Vec<Endpoint>) -> Result<Resolution, Failure> {
        let archive = region(&event).map(|region| Choice::Registered(format!("{region}-archive")));
        Ok(Resolution {
            mode: Mode::Add,
            choices: archive.into_iter().collect(),
        })
    }
}

impl transform::Guest for TagAndRoute {
    fn transform(event: Event, endpoint: Endpoint) -> Result<Verdict, Failure> {
        let region = region(&event);
        if let Some(other) = elsewhere(&endpoint, region.as_deref()) {
            log::log(log::Level::Info, "skipped an endpoint of another region");
            return Ok(Verdict::Skip(format!("the endpoint is in {other}")));
        }
        Ok(Verdict::Deliver(Request {
            body: event.payload,
            content_type: None,
            headers: region
                .map(|region| ("x-region".to_owned(), region))
                .into_iter()
                .collect(),
        }))
    }
}

/// The configured region whose endpoint this is, when the event belongs to a different one.
fn elsewhere(endpoint: &Endpoint, region: Option<&str>) -> Option<String> {
    let regions = config::get("regions").unwrap_or_default();
    let home = regions
        .split(',')
        .map(str::trim)
        .find(|region| !region.is_empty() && endpoint.id.starts_with(&format!("{region}-")))?;
    (region? != home).then(|| home.to_owned())
}

fn region(event: &Event) -> Option<String> {
    let payload: Value = serde_json::from_slice(&event.payload).ok()?;
    Some(payload.get("region")?.as_str()?.to_owned())
}

export!(TagAndRoute);
