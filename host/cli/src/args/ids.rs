//! Ids and times on the command line: one that cannot be right is wrong usage, by the rule of the domain.
//!
//! clap names the argument, so these say only what was expected.

use jiff::Timestamp;
use wasmhook_core::{DeliveryId, EventId, EventType, OrderingKey, PluginName, TenantId};
use wasmhook_runtime::GLOBAL;

pub(super) fn tenant(text: &str) -> Result<TenantId, &'static str> {
    TenantId::new(text).map_err(|_| TenantId::EXPECTED)
}

/// A tenant, or the operator in the place of one.
pub(super) fn tenant_or_global(text: &str) -> Result<String, String> {
    if text == GLOBAL {
        return Ok(text.to_owned());
    }
    let tenant = tenant(text).map_err(|expected| format!("{expected}, or {GLOBAL}"))?;
    Ok(tenant.into())
}

pub(super) fn plugin(text: &str) -> Result<String, &'static str> {
    PluginName::new(text)
        .map(String::from)
        .map_err(|_| PluginName::EXPECTED)
}

pub(super) fn delivery(text: &str) -> Result<DeliveryId, &'static str> {
    DeliveryId::new(text).map_err(|_| DeliveryId::EXPECTED)
}

pub(super) fn event(text: &str) -> Result<EventId, &'static str> {
    EventId::new(text).map_err(|_| EventId::EXPECTED)
}

pub(super) fn event_type(text: &str) -> Result<EventType, &'static str> {
    EventType::new(text).map_err(|_| EventType::EXPECTED)
}

pub(super) fn ordering_key(text: &str) -> Result<OrderingKey, &'static str> {
    OrderingKey::new(text).map_err(|_| OrderingKey::EXPECTED)
}

/// A time as a producer writes it, and it is pushed.
pub(super) fn time(text: &str) -> Result<String, &'static str> {
    match text.trim().parse::<Timestamp>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected an RFC 3339 time with an offset, such as 2026-01-31T09:30:00Z"),
    }
}
