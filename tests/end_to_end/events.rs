//! Events in numbers, and as a producer adds them to the stream.

use serde_json::json;
use wasmhook_testing::RedisServer;

use crate::support::{event, redis_cli};

pub(crate) fn stream_of(count: usize) -> String {
    (0..count)
        .map(|n| {
            event(
                "acme",
                "invoice.paid",
                &format!("evt_{n}"),
                &json!({"n": n, "card": "4242"}),
            ) + "\n"
        })
        .collect()
}

/// Adds an event of acme to the stream.
pub(crate) fn xadd(redis: &RedisServer, kind: &str, id: &str, payload: &str) {
    let to = ["XADD", "wasmhook:events", "*", "tenant", "acme"];
    let event = ["type", kind, "id", id, "payload", payload];
    redis_cli(redis.port(), &[&to[..], &event].concat());
}
