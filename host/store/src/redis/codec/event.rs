//! An event: version, packed facts, payload as it came or compressed.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wasmhook_core::{Event, EventId, EventType, OrderingKey, Payload, TenantId};

use super::{Damaged, Result, append, time};
use crate::redis::compression;

/// An event as all hosts can read it.
const VERSION: u8 = 1;
/// One that says how it is to be delivered.
const WISHES_VERSION: u8 = 2;
/// One whose payload is compressed; it may say how it is to be delivered too.
const COMPRESSED_VERSION: u8 = 3;

#[derive(Serialize, Deserialize)]
struct PackedEvent {
    event_type: EventType,
    seconds: i64,
    nanoseconds: i32,
}

/// What follows in an event of [`WISHES_VERSION`] and later.
#[derive(Default, Serialize, Deserialize)]
struct PackedWishes {
    deliver_at: Option<i64>,
    ordering_key: Option<OrderingKey>,
}

/// Packs an event.
pub(in crate::redis) fn pack_event(event: &Event) -> Vec<u8> {
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
        None => WISHES_VERSION,
    };
    start.push(version);
    let mut bytes = append(&facts, start);
    if version != VERSION {
        let wishes = PackedWishes {
            deliver_at: event.deliver_at.map(Timestamp::as_millisecond),
            ordering_key: event.ordering_key.clone(),
        };
        bytes = append(&wishes, bytes);
    }
    bytes.extend_from_slice(compressed.as_deref().unwrap_or(event.payload.bytes()));
    bytes
}

/// Reads an event; a payload that is not compressed shares the memory of `bytes`.
pub(in crate::redis) fn unpack_event(
    tenant: &TenantId,
    id: &EventId,
    bytes: &Bytes,
) -> Result<Event> {
    let (version, packed) = bytes.split_first().ok_or(Damaged)?;
    let (facts, rest): (PackedEvent, _) = postcard::take_from_bytes(packed).map_err(|_| Damaged)?;
    let (wishes, payload) = match *version {
        VERSION => (PackedWishes::default(), rest),
        WISHES_VERSION | COMPRESSED_VERSION => {
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
    use proptest::prelude::*;

    use super::super::samples::event;
    use super::*;

    proptest! {
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
            let _ = unpack_event(&tenant, &EventId::new("e").unwrap(), &Bytes::from(bytes));
        }
    }

    /// Other hosts, and later versions, read these bytes: they change only with the version in them.
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
}
