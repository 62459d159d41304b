//! An event, a delivery of it, and an attempt at it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::delivery::default_id;
use wasmhook_core::{Delivery, DeliveryState, EndpointId, Event, EventDraft, PluginUse};

pub(super) fn event(id: &str, payload: &str, at: (i64, i32)) -> Event {
    let mut event = EventDraft {
        id: id.to_owned(),
        tenant: "acme".to_owned(),
        event_type: "a.b".to_owned(),
        payload: Bytes::from(payload.to_owned()),
        ..EventDraft::default()
    }
    .accept(Timestamp::UNIX_EPOCH, 1 << 20)
    .unwrap();
    event.occurred_at = Timestamp::new(at.0, at.1).unwrap();
    event
}

pub(super) fn attempt(number: u32, text: &str, status: Option<u16>) -> Attempt {
    let at = Timestamp::from_millisecond(1_790_000_000_123).unwrap();
    let mut attempt =
        Attempt::answered(number, at, Duration::from_millis(9), status.unwrap_or(503));
    attempt.status_code = status;
    attempt.error = Some(text.to_owned());
    attempt.response_excerpt = status.map(|_| text.to_owned());
    attempt.plugins = vec![PluginUse {
        name: text.to_owned(),
        digest: "00".to_owned(),
        cpu_us: u64::from(number),
        verdict: status.map(|_| "trap".to_owned()),
    }];
    attempt.next_at = status.map(|_| at);
    attempt
}

pub(super) fn delivery(event: &Event, endpoint: &str, number: u32) -> Delivery {
    let endpoint = EndpointId::new(endpoint).unwrap();
    let id = default_id(&event.tenant_id, &event.id, &endpoint);
    let mut delivery = Delivery::pending(
        id,
        event,
        endpoint,
        None,
        Timestamp::from_millisecond(1_790_000_000_123).unwrap(),
    );
    delivery.attempt = number;
    delivery.state = DeliveryState::Failed;
    delivery
}
