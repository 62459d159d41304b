//! A receiver whose answers are planned, and what came of a delivery.

use serde_json::Value;
use tokio::runtime::Runtime;
use wasmhook_testing::Receiver;

use crate::support::{Listener, Site, push, wait_for};

/// A receiver whose answers the test plans, with the runtime that it lives on.
pub(crate) struct Planned {
    pub(crate) receiver: Receiver,
    _runtime: Runtime,
}

pub(crate) fn receiver() -> Planned {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    Planned {
        receiver: runtime.block_on(Receiver::start()).unwrap(),
        _runtime: runtime,
    }
}

/// The attempts at the one delivery of a tenant, once it has come to this state.
pub(crate) fn attempts(site: &Site, tenant: &str, state: &str) -> Vec<Value> {
    let delivery = wait_for(&format!("{tenant} to be {state}"), || {
        site.deliveries(tenant, state).pop()
    });
    let id = delivery["id"].as_str().unwrap();
    let story = site.json(&["deliveries", "show", id, "--tenant", tenant]);
    story["attempts"].as_array().unwrap().clone()
}

/// The body that came of an event, once it arrived.
pub(crate) fn arrived(site: &Site, receiver: &Listener, id: &str, payload: &Value) -> Value {
    let before = receiver.arrived().len();
    push(site, "acme", id, payload);
    let lines = wait_for("the delivery", || {
        let lines = receiver.arrived();
        (lines.len() > before).then_some(lines)
    });
    serde_json::from_str(lines[before]["body"].as_str().unwrap()).unwrap()
}
