//! Packed records: what the functions keep without looking into it.
//!
//! A record starts with what the functions do look at (see `queue.lua`): 16 digits of creation
//! stamp, a letter for the state, then event, endpoint, attempt and ordering key, each ended by a
//! zero byte. A version byte and the rest in postcard follow. Tenant and delivery id are in the key.
//! Times are milliseconds, except an event's own.

use std::io::Write as _;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wasmhook_core::attempt::{Attempt, ErrorClass, Outcome, PluginUse};
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, EndpointId, Event, EventId, EventType, Payload,
    ResolvedEndpoint, TenantId,
};

/// The version of what follows the envelope.
const VERSION: u8 = 1;
/// Digits of the creation stamp.
pub(super) const STAMP: usize = 16;
/// Of very many attempts, the first and the latest are kept, this many in all.
pub const MAX_ATTEMPTS: usize = 50;
/// The longest response excerpt kept of an attempt, in bytes.
pub const MAX_EXCERPT: usize = 1024;

/// Why bytes are not a record; the caller knows which.
#[derive(Debug)]
pub(super) struct Damaged;

type Result<T> = std::result::Result<T, Damaged>;

#[derive(Serialize, Deserialize)]
struct PackedDelivery {
    event_type: EventType,
    // As JSON, because its parts describe themselves.
    resolved: Option<String>,
    resolver: Option<PluginUse>,
    replayed_at_attempt: u32,
    next_at: i64,
    updated_at: i64,
    attempts: Vec<PackedAttempt>,
}

#[derive(Serialize, Deserialize)]
struct PackedAttempt {
    number: u32,
    at: i64,
    duration_ms: u64,
    outcome: Outcome,
    status_code: Option<u16>,
    retryable: bool,
    error_class: Option<ErrorClass>,
    error: Option<String>,
    plugins: Vec<PluginUse>,
    response_excerpt: Option<String>,
    next_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct PackedEvent {
    event_type: EventType,
    seconds: i64,
    nanoseconds: i32,
}

fn time(ms: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| Damaged)
}

fn cut(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl PackedAttempt {
    fn new(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.as_millisecond(),
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome,
            status_code: attempt.status_code,
            retryable: attempt.retryable,
            error_class: attempt.error_class,
            error: attempt.error.as_deref().map(|text| cut(text, MAX_EXCERPT)),
            plugins: attempt.plugins.clone(),
            response_excerpt: attempt
                .response_excerpt
                .as_deref()
                .map(|text| cut(text, MAX_EXCERPT)),
            next_at: attempt.next_at.map(Timestamp::as_millisecond),
        }
    }

    fn unpack(self) -> Result<Attempt> {
        Ok(Attempt {
            number: self.number,
            at: time(self.at)?,
            duration_ms: self.duration_ms,
            outcome: self.outcome,
            status_code: self.status_code,
            retryable: self.retryable,
            error_class: self.error_class,
            error: self.error,
            plugins: self.plugins,
            response_excerpt: self.response_excerpt,
            next_at: self.next_at.map(time).transpose()?,
            wait: None,
        })
    }
}

fn finish<T: Serialize>(value: &T, start: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, start).expect("plain data is always packed")
}

/// The letter of a state in a record. A lease is not part of the record.
fn letter(state: DeliveryState) -> char {
    match state {
        DeliveryState::Pending | DeliveryState::Leased => 'p',
        DeliveryState::Failed => 'f',
        DeliveryState::Succeeded => 's',
        DeliveryState::DeadLetter => 'x',
    }
}

fn state(letter: u8) -> Result<DeliveryState> {
    match letter {
        b'p' => Ok(DeliveryState::Pending),
        b'f' => Ok(DeliveryState::Failed),
        b's' => Ok(DeliveryState::Succeeded),
        b'x' => Ok(DeliveryState::DeadLetter),
        _ => Err(Damaged),
    }
}

/// A record after its stamp, appended to `to`. Of the attempts, the first and the latest are kept.
pub(super) fn pack_rest(
    to: Vec<u8>,
    delivery: &Delivery,
    attempts: &[Attempt],
    latest: Option<&Attempt>,
) -> Vec<u8> {
    let all = attempts.len() + usize::from(latest.is_some());
    let skipped = all.saturating_sub(MAX_ATTEMPTS);
    let kept = attempts
        .iter()
        .chain(latest)
        .enumerate()
        .filter(|(place, _)| *place == 0 || *place > skipped)
        .map(|(_, attempt)| PackedAttempt::new(attempt));
    let packed = PackedDelivery {
        event_type: delivery.event_type.clone(),
        resolved: delivery.resolved.as_ref().map(|resolved| {
            serde_json::to_string(resolved).expect("a resolved endpoint is plain data")
        }),
        resolver: delivery.resolver.clone(),
        replayed_at_attempt: delivery.replayed_at_attempt,
        next_at: delivery.next_at.as_millisecond(),
        updated_at: delivery.updated_at.as_millisecond(),
        attempts: kept.collect(),
    };
    let mut to = to;
    // Nothing is ordered yet: the ordering key is empty.
    write!(
        to,
        "{}{}\0{}\0{}\0\0",
        letter(delivery.state),
        delivery.event_id,
        delivery.endpoint_id,
        delivery.attempt
    )
    .expect("memory takes everything");
    to.push(VERSION);
    finish(&packed, to)
}

/// A whole record of a known delivery, with the stamp that it was read with.
pub(super) fn pack_record(
    delivery: &Delivery,
    attempts: &[Attempt],
    latest: Option<&Attempt>,
) -> Vec<u8> {
    let mut start = Vec::with_capacity(256);
    write!(start, "{:016}", delivery.created_at.as_microsecond()).expect("memory takes everything");
    pack_rest(start, delivery, attempts, latest)
}

/// The time of a stamp.
pub(super) fn stamp_time(stamp: &[u8]) -> Option<(u64, Timestamp)> {
    let micros: u64 = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    let time = Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok()?;
    Some((micros, time))
}

/// Reads a record.
pub(super) fn unpack_record(
    tenant: &TenantId,
    id: &DeliveryId,
    bytes: &[u8],
) -> Result<(Delivery, Vec<Attempt>)> {
    let (stamp, rest) = bytes.split_at_checked(STAMP).ok_or(Damaged)?;
    let (letter, rest) = rest.split_first().ok_or(Damaged)?;
    let state = state(*letter)?;
    let mut parts = rest.splitn(5, |byte| *byte == 0);
    let mut text = || std::str::from_utf8(parts.next().ok_or(Damaged)?).map_err(|_| Damaged);
    let event_id = EventId::new(text()?).map_err(|_| Damaged)?;
    let endpoint_id = EndpointId::new(text()?).map_err(|_| Damaged)?;
    let attempt = text()?.parse().map_err(|_| Damaged)?;
    let _ordering = text()?;
    let (version, packed) = parts.next().and_then(<[u8]>::split_first).ok_or(Damaged)?;
    if *version != VERSION {
        return Err(Damaged);
    }
    let (_, created_at) = stamp_time(stamp).ok_or(Damaged)?;
    let packed: PackedDelivery = postcard::from_bytes(packed).map_err(|_| Damaged)?;
    let resolved: Option<ResolvedEndpoint> = packed
        .resolved
        .map(|json| serde_json::from_str(&json).map_err(|_| Damaged))
        .transpose()?;
    let attempts = packed
        .attempts
        .into_iter()
        .map(PackedAttempt::unpack)
        .collect::<Result<_>>()?;
    // One that nobody has tried yet carries no time but the server's.
    let untried = attempt == 0 && state == DeliveryState::Pending;
    let given = |ms| if untried { Ok(created_at) } else { time(ms) };
    let delivery = Delivery {
        id: id.clone(),
        tenant_id: tenant.clone(),
        event_id,
        event_type: packed.event_type,
        endpoint_id,
        resolved,
        resolver: packed.resolver,
        state,
        attempt,
        replayed_at_attempt: packed.replayed_at_attempt,
        next_at: given(packed.next_at)?,
        created_at,
        updated_at: given(packed.updated_at)?,
    };
    Ok((delivery, attempts))
}

/// An event: version, packed facts, payload as it came.
pub(super) fn pack_event(event: &Event) -> Vec<u8> {
    let facts = PackedEvent {
        event_type: event.event_type.clone(),
        seconds: event.occurred_at.as_second(),
        nanoseconds: event.occurred_at.subsec_nanosecond(),
    };
    let mut start = Vec::with_capacity(64 + event.payload.len());
    start.push(VERSION);
    let mut bytes = finish(&facts, start);
    bytes.extend_from_slice(event.payload.bytes());
    bytes
}

/// Reads an event; its payload shares the memory of `bytes`.
pub(super) fn unpack_event(tenant: &TenantId, id: &EventId, bytes: &Bytes) -> Result<Event> {
    let (version, packed) = bytes.split_first().ok_or(Damaged)?;
    if *version != VERSION {
        return Err(Damaged);
    }
    let (facts, payload): (PackedEvent, _) =
        postcard::take_from_bytes(packed).map_err(|_| Damaged)?;
    Ok(Event {
        id: id.clone(),
        tenant_id: tenant.clone(),
        event_type: facts.event_type,
        payload: Payload::from_stored(bytes.slice_ref(payload)),
        occurred_at: Timestamp::new(facts.seconds, facts.nanoseconds).map_err(|_| Damaged)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wasmhook_core::EventDraft;
    use wasmhook_core::delivery::default_id;

    use super::*;

    fn event(id: &str, payload: &str, at: (i64, i32)) -> Event {
        let mut event = EventDraft {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            event_type: "a.b".to_owned(),
            payload: Bytes::from(payload.to_owned()),
            occurred_at: None,
        }
        .accept(Timestamp::UNIX_EPOCH, 1 << 20)
        .unwrap();
        event.occurred_at = Timestamp::new(at.0, at.1).unwrap();
        event
    }

    fn attempt(number: u32, text: &str, status: Option<u16>) -> Attempt {
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
        }];
        attempt.next_at = status.map(|_| at);
        attempt
    }

    fn delivery(event: &Event, endpoint: &str, number: u32) -> Delivery {
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

    proptest! {
        #[test]
        fn records_come_back_as_they_were(
            id in "[a-zé☂ ]{0,20}x",
            endpoint in "[a-z{}☂]{1,20}",
            numbers in proptest::collection::vec((any::<u32>(), "[a-z☂]{0,40}", any::<Option<u16>>()), 0..10),
        ) {
            let event = event(&id, "1", (0, 0));
            let delivery = delivery(&event, &endpoint, 7);
            let attempts: Vec<_> = numbers.iter().map(|(n, text, status)| attempt(*n, text, *status)).collect();
            let split = attempts.split_last();
            let bytes = pack_record(
                &delivery,
                split.map_or(&[], |(_, rest)| rest),
                split.map(|(last, _)| last),
            );
            let (found, found_attempts) = unpack_record(&delivery.tenant_id, &delivery.id, &bytes).unwrap();
            prop_assert_eq!(found, delivery);
            prop_assert_eq!(found_attempts, attempts);
        }

        #[test]
        fn events_come_back_as_they_were(
            payload in "[ \n]{0,3}\"[a-zé☂]{0,200}\"[ \n]{0,3}",
            seconds in -10_000_000_000i64..10_000_000_000,
            nanoseconds in 0..1_000_000_000i32,
        ) {
            let nanoseconds = if seconds < 0 { 0 } else { nanoseconds };
            let event = event("evt", &payload, (seconds, nanoseconds));
            let bytes = Bytes::from(pack_event(&event));
            prop_assert_eq!(unpack_event(&event.tenant_id, &event.id, &bytes).unwrap(), event);
        }

        #[test]
        fn damaged_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let tenant = TenantId::new("acme").unwrap();
            let _ = unpack_record(&tenant, &DeliveryId::new("d").unwrap(), &bytes);
            let _ = unpack_event(&tenant, &EventId::new("e").unwrap(), &Bytes::from(bytes));
        }
    }

    #[test]
    fn of_many_attempts_the_first_and_the_latest_are_kept() {
        let event = event("e", "1", (0, 0));
        let delivery = delivery(&event, "main", 60);
        let attempts: Vec<_> = (1..=59).map(|n| attempt(n, "x", None)).collect();
        let bytes = pack_record(&delivery, &attempts, Some(&attempt(60, "x", None)));
        let (_, kept) = unpack_record(&delivery.tenant_id, &delivery.id, &bytes).unwrap();
        let numbers: Vec<_> = kept.iter().map(|a| a.number).collect();
        assert_eq!(numbers.len(), MAX_ATTEMPTS);
        assert_eq!(numbers[..2], [1, 12]);
        assert_eq!(numbers.last(), Some(&60));
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let event = event("e", "1", (0, 0));
        let delivery = delivery(&event, "main", 1);
        let long = attempt(1, &"é".repeat(2000), Some(500));
        let bytes = pack_record(&delivery, &[], Some(&long));
        let (_, kept) = unpack_record(&delivery.tenant_id, &delivery.id, &bytes).unwrap();
        let excerpt = kept[0].response_excerpt.as_ref().unwrap();
        assert_eq!(excerpt.len(), MAX_EXCERPT);
    }
}
