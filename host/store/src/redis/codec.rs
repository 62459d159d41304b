//! Packed records: what the functions keep without looking into it.
//!
//! A record starts with what the functions do look at (see `queue.lua`): 16 digits of creation
//! stamp, a letter for the state, then event, endpoint, attempt and sequence, each ended by a
//! zero byte. A version byte and the rest in postcard follow. Tenant and delivery id are in the key.
//! Times are milliseconds, except an event's own.

use std::io::Write as _;
use std::iter;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wasmhook_core::attempt::{Attempt, ErrorClass, Outcome};
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, EndpointId, Event, EventId, EventType, OnDeadLetter,
    OrderingKey, Payload, ResolvedEndpoint, Sequence, TenantId,
};

use super::compression;
use crate::plugin_use::{self, PackedUse, PackedVerdict};

/// The version of what follows the envelope.
const VERSION: u8 = 1;
/// The version of the record of a delivery that is in a sequence. It differs in nothing: hosts that do not
/// know sequences are to leave such a delivery alone, for they would not let the next one go.
const SEQUENCE_VERSION: u8 = 2;
/// The version of an event that says how it is to be delivered. Others are of the first, which all hosts
/// can read.
const EVENT_VERSION: u8 = 2;
/// The version of an event whose payload is compressed.
const COMPRESSED_VERSION: u8 = 3;
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
    resolver: Option<PackedUse>,
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
    plugins: Vec<PackedUse>,
    response_excerpt: Option<String>,
    next_at: Option<i64>,
}

/// What stands behind a delivery, if there is anything to say. Hosts of older versions do not read it.
#[derive(Default, Serialize, Deserialize)]
struct PackedVerdicts {
    resolver: PackedVerdict,
    /// Of the plugins of each attempt.
    attempts: Vec<Vec<PackedVerdict>>,
}

#[derive(Serialize, Deserialize)]
struct PackedEvent {
    event_type: EventType,
    seconds: i64,
    nanoseconds: i32,
}

/// What follows in an event of [`EVENT_VERSION`] and later.
#[derive(Default, Serialize, Deserialize)]
struct PackedWishes {
    deliver_at: Option<i64>,
    ordering_key: Option<OrderingKey>,
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
            plugins: attempt.plugins.iter().map(PackedUse::from).collect(),
            response_excerpt: attempt
                .response_excerpt
                .as_deref()
                .map(|text| cut(text, MAX_EXCERPT)),
            next_at: attempt.next_at.map(Timestamp::as_millisecond),
        }
    }

    fn unpack(self, verdicts: Vec<PackedVerdict>) -> Result<Attempt> {
        Ok(Attempt {
            number: self.number,
            at: time(self.at)?,
            duration_ms: self.duration_ms,
            outcome: self.outcome,
            status_code: self.status_code,
            retryable: self.retryable,
            error_class: self.error_class,
            error: self.error,
            plugins: plugin_use::unpack(self.plugins, verdicts),
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
        .map(|(_, attempt)| attempt);
    let packed = PackedDelivery {
        event_type: delivery.event_type.clone(),
        resolved: delivery.resolved.as_ref().map(|resolved| {
            serde_json::to_string(resolved).expect("a resolved endpoint is plain data")
        }),
        resolver: delivery.resolver.as_ref().map(PackedUse::from),
        replayed_at_attempt: delivery.replayed_at_attempt,
        next_at: if delivery.attempt == 0 && !delivery.is_scheduled() {
            // When it is made, which is the server's to say.
            0
        } else {
            delivery.next_at.as_millisecond()
        },
        updated_at: delivery.updated_at.as_millisecond(),
        attempts: kept.clone().map(PackedAttempt::new).collect(),
    };
    let mut to = to;
    write!(
        to,
        "{}{}\0{}\0{}\0",
        letter(delivery.state),
        delivery.event_id,
        delivery.endpoint_id,
        delivery.attempt
    )
    .expect("memory takes everything");
    match &delivery.sequence {
        None => to.extend_from_slice(&[0, VERSION]),
        Some(sequence) => {
            pack_sequence(&mut to, sequence, delivery);
            to.extend_from_slice(&[0, SEQUENCE_VERSION]);
        }
    }
    let to = finish(&packed, to);
    if delivery.resolver.is_none() && kept.clone().all(|attempt| attempt.plugins.is_empty()) {
        return to;
    }
    let verdicts = PackedVerdicts {
        resolver: delivery
            .resolver
            .as_ref()
            .and_then(|used| used.verdict.clone()),
        attempts: kept
            .map(|attempt| plugin_use::verdicts(&attempt.plugins))
            .collect(),
    };
    finish(&verdicts, to)
}

/// What a record says of its sequence: whether a dead letter blocks it (b) or is skipped (s), after how many
/// attempts it is one, when the delivery is due at the soonest, and the key.
fn pack_sequence(to: &mut Vec<u8>, sequence: &Sequence, delivery: &Delivery) {
    to.push(if sequence.blocks() { b'b' } else { b's' });
    if let Some(most) = sequence.max_attempts {
        write!(to, "{most}").expect("memory takes everything");
    }
    to.push(b':');
    if delivery.state == DeliveryState::Pending && delivery.is_scheduled() {
        write!(to, "{}", delivery.next_at.as_millisecond()).expect("memory takes everything");
    }
    write!(to, ":{}", sequence.name()).expect("memory takes everything");
}

fn unpack_sequence(text: &str) -> Result<Option<Sequence>> {
    let Some((policy, rest)) = text.split_at_checked(1) else {
        return Ok(None);
    };
    let mut parts = rest.splitn(3, ':');
    let mut part = || parts.next().ok_or(Damaged);
    let (most, _due, key) = (part()?, part()?, part()?);
    Ok(Some(Sequence {
        key: match key {
            "" => None,
            key => Some(OrderingKey::new(key).map_err(|_| Damaged)?),
        },
        on_dead_letter: match policy {
            "b" => OnDeadLetter::Block,
            "s" => OnDeadLetter::Skip,
            _ => return Err(Damaged),
        },
        max_attempts: match most {
            "" => None,
            most => Some(most.parse().map_err(|_| Damaged)?),
        },
    }))
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
    let sequence = unpack_sequence(text()?)?;
    let (version, packed) = parts.next().and_then(<[u8]>::split_first).ok_or(Damaged)?;
    if !matches!(*version, VERSION | SEQUENCE_VERSION) {
        return Err(Damaged);
    }
    let (_, created_at) = stamp_time(stamp).ok_or(Damaged)?;
    let (packed, rest): (PackedDelivery, _) =
        postcard::take_from_bytes(packed).map_err(|_| Damaged)?;
    let verdicts: PackedVerdicts = plugin_use::behind(rest).map_err(|_| Damaged)?;
    let resolved: Option<ResolvedEndpoint> = packed
        .resolved
        .map(|json| serde_json::from_str(&json).map_err(|_| Damaged))
        .transpose()?;
    let of_attempts = verdicts
        .attempts
        .into_iter()
        .chain(iter::repeat(Vec::new()));
    let attempts = packed
        .attempts
        .into_iter()
        .zip(of_attempts)
        .map(|(attempt, verdicts)| attempt.unpack(verdicts))
        .collect::<Result<_>>()?;
    // One that nobody has tried yet carries no time but the server's, and the one that it waits for.
    let untried = attempt == 0 && state == DeliveryState::Pending;
    let next_at = time(packed.next_at)?;
    let delivery = Delivery {
        id: id.clone(),
        tenant_id: tenant.clone(),
        event_id,
        event_type: packed.event_type,
        endpoint_id,
        resolved,
        resolver: packed.resolver.map(|used| used.unpack(verdicts.resolver)),
        sequence,
        state,
        attempt,
        replayed_at_attempt: packed.replayed_at_attempt,
        next_at: if untried {
            next_at.max(created_at)
        } else {
            next_at
        },
        created_at,
        updated_at: if untried {
            created_at
        } else {
            time(packed.updated_at)?
        },
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
    let compressed = compression::compress(event.payload.bytes());
    let plain = event.deliver_at.is_none() && event.ordering_key.is_none();
    let version = match &compressed {
        Some(_) => COMPRESSED_VERSION,
        None if plain => VERSION,
        None => EVENT_VERSION,
    };
    start.push(version);
    let mut bytes = finish(&facts, start);
    if version != VERSION {
        let wishes = PackedWishes {
            deliver_at: event.deliver_at.map(Timestamp::as_millisecond),
            ordering_key: event.ordering_key.clone(),
        };
        bytes = finish(&wishes, bytes);
    }
    bytes.extend_from_slice(compressed.as_deref().unwrap_or(event.payload.bytes()));
    bytes
}

/// Reads an event; a payload that is not compressed shares the memory of `bytes`.
pub(super) fn unpack_event(tenant: &TenantId, id: &EventId, bytes: &Bytes) -> Result<Event> {
    let (version, packed) = bytes.split_first().ok_or(Damaged)?;
    let (facts, rest): (PackedEvent, _) = postcard::take_from_bytes(packed).map_err(|_| Damaged)?;
    let (wishes, payload) = match *version {
        VERSION => (PackedWishes::default(), rest),
        EVENT_VERSION | COMPRESSED_VERSION => {
            postcard::take_from_bytes(rest).map_err(|_| Damaged)?
        }
        _ => return Err(Damaged),
    };
    let payload = if *version == COMPRESSED_VERSION {
        Bytes::from(compression::decompress(payload).ok_or(Damaged)?)
    } else {
        bytes.slice_ref(payload)
    };
    Ok(Event {
        id: id.clone(),
        tenant_id: tenant.clone(),
        event_type: facts.event_type,
        payload: Payload::from_stored(payload),
        occurred_at: Timestamp::new(facts.seconds, facts.nanoseconds).map_err(|_| Damaged)?,
        deliver_at: wishes.deliver_at.map(time).transpose()?,
        ordering_key: wishes.ordering_key,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wasmhook_core::delivery::default_id;
    use wasmhook_core::{EventDraft, PluginUse};

    use super::*;

    fn event(id: &str, payload: &str, at: (i64, i32)) -> Event {
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
            verdict: status.map(|_| "trap".to_owned()),
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
            sequence in proptest::option::of((
                proptest::option::of("[a-zé☂:]{1,20}"),
                any::<bool>(),
                any::<Option<std::num::NonZeroU32>>(),
            )),
        ) {
            let event = event(&id, "1", (0, 0));
            let mut delivery = delivery(&event, &endpoint, 7);
            delivery.sequence = sequence.map(|(key, blocks, max_attempts)| Sequence {
                key: key.map(|key| OrderingKey::new(key).unwrap()),
                on_dead_letter: if blocks { OnDeadLetter::Block } else { OnDeadLetter::Skip },
                max_attempts,
            });
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
            payload in "[ \n]{0,3}\"([a-zé☂]{0,200}|(abc ☂){1500})\"[ \n]{0,3}",
            seconds in -10_000_000_000i64..10_000_000_000,
            nanoseconds in 0..1_000_000_000i32,
            deliver_at in proptest::option::of(0..10_000_000_000_000i64),
            key in proptest::option::of("[a-zé☂:]{1,20}"),
        ) {
            let nanoseconds = if seconds < 0 { 0 } else { nanoseconds };
            let mut event = event("evt", &payload, (seconds, nanoseconds));
            event.deliver_at = deliver_at.map(|ms| time(ms).unwrap());
            event.ordering_key = key.map(|key| OrderingKey::new(key).unwrap());
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

    /// Other hosts, and later versions, read these bytes: they change only with the version in them.
    #[test]
    fn a_record_is_packed_into_these_bytes() {
        let mut delivery = delivery(&event("e", "1", (0, 0)), "main", 2);
        delivery.sequence = Some(Sequence {
            key: Some(OrderingKey::new("customer-7").unwrap()),
            on_dead_letter: OnDeadLetter::Skip,
            max_attempts: std::num::NonZeroU32::new(5),
        });
        let made = [attempt(1, "gone", None), attempt(2, "refused", Some(503))];
        let bytes = pack_record(&delivery, &made[..1], Some(&made[1]));
        assert_eq!(
            bytes.escape_ascii().to_string(),
            concat!(
                r"1790000000123000fe\x00main\x002\x00s5::customer-7\x00\x02",
                r"\x03a.b\x00\x00\x00\xf6\xb1\x83\xc5\x98h\xf6\xb1\x83\xc5\x98h\x02",
                r"\x01\xf6\xb1\x83\xc5\x98h\t\x01\x00\x01\x01\x00\x01\x04gone\x01\x04gone\x0200\x01\x00\x00",
                r"\x02\xf6\xb1\x83\xc5\x98h\t\x01\x01\xf7\x03\x01\x01\x00\x01\x07refused\x01\x07refused\x0200\x02",
                r"\x01\x07refused\x01\xf6\xb1\x83\xc5\x98h",
                r"\x00\x02\x01\x00\x01\x01\x04trap",
            )
        );
    }

    #[test]
    fn an_event_is_packed_into_these_bytes() {
        let mut event = event("e", r#"{"n":1}"#, (1_790_000_000, 5));
        let bytes = pack_event(&event);
        assert_eq!(
            bytes.escape_ascii().to_string(),
            r#"\x01\x03a.b\x80\xee\x89\xab\r\n{\"n\":1}"#
        );
        event.deliver_at = Some(time(1_790_000_000_123).unwrap());
        event.ordering_key = Some(OrderingKey::new("customer-7").unwrap());
        let bytes = pack_event(&event);
        assert_eq!(
            bytes.escape_ascii().to_string(),
            r#"\x02\x03a.b\x80\xee\x89\xab\r\n\x01\xf6\xb1\x83\xc5\x98h\x01\ncustomer-7{\"n\":1}"#
        );
        // How the payload is compressed is the library's to say.
        event.payload = Payload::from_stored(Bytes::from("7".repeat(compression::THRESHOLD)));
        let head = bytes.len() - r#"{"n":1}"#.len();
        let compressed = pack_event(&event);
        assert_eq!(compressed[0], COMPRESSED_VERSION);
        assert_eq!(compressed[1..head], bytes[1..head]);
    }

    /// A record as version 0.1.0 wrote it, with nothing behind the delivery.
    #[test]
    fn a_record_of_an_older_version_is_read_and_its_plugins_have_no_verdict() {
        let event = event("e", "1", (0, 0));
        let mut delivery = delivery(&event, "main", 2);
        let used = |verdict: Option<&str>| PluginUse {
            name: "10-redact".to_owned(),
            digest: "ab".repeat(32),
            cpu_us: 77,
            verdict: verdict.map(str::to_owned),
        };
        delivery.resolver = Some(used(Some("resolve")));
        let mut made = attempt(2, "x", Some(503));
        made.plugins = vec![used(Some("deliver"))];
        let bytes = pack_record(&delivery, &[], Some(&made));
        let behind = PackedVerdicts {
            resolver: Some("resolve".to_owned()),
            attempts: vec![vec![Some("deliver".to_owned())]],
        };
        let length = bytes.len() - postcard::to_stdvec(&behind).unwrap().len();
        let (found, attempts) =
            unpack_record(&delivery.tenant_id, &delivery.id, &bytes[..length]).unwrap();
        delivery.resolver = Some(used(None));
        made.plugins = vec![used(None)];
        assert_eq!(found, delivery);
        assert_eq!(attempts, [made]);
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
