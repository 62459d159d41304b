//! The record of a delivery.
//!
//! Behind its head are a version byte, the delivery and its attempts, and the verdicts of its plugins.

use std::iter;

use serde::{Deserialize, Serialize};
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Delivery, DeliveryId, DeliveryState, EventType, ResolvedEndpoint, TenantId};

use super::attempts::{self, PackedAttempt};
use super::head::{Head, pack_head};
use super::stamp::pack_stamp;
use super::{Damaged, Result, append, time};
use crate::plugin_use::{self, PackedUse, PackedVerdict};

/// The version of what follows the head.
const VERSION: u8 = 1;
/// The version of the record of a delivery that is in a sequence. It differs in nothing: hosts that do not
/// know sequences are to leave such a delivery alone, for they would not let the next one go.
const SEQUENCE_VERSION: u8 = 2;

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

/// What stands behind a delivery, if there is anything to say. Hosts of older versions do not read it.
#[derive(Default, Serialize, Deserialize)]
struct PackedVerdicts {
    resolver: PackedVerdict,
    /// Of the plugins of each attempt.
    attempts: Vec<Vec<PackedVerdict>>,
}

/// A whole record of a known delivery, with the stamp that it was read with.
pub(in crate::redis) fn pack_record(
    delivery: &Delivery,
    attempts: &[Attempt],
    latest: Option<&Attempt>,
) -> Vec<u8> {
    let mut start = Vec::with_capacity(256);
    pack_stamp(&mut start, delivery.created_at);
    pack_rest(start, delivery, attempts, latest)
}

/// A record after its stamp, appended to `to`. Of the attempts, the first and the latest are kept.
pub(in crate::redis) fn pack_rest(
    to: Vec<u8>,
    delivery: &Delivery,
    attempts: &[Attempt],
    latest: Option<&Attempt>,
) -> Vec<u8> {
    let kept = attempts::kept(attempts, latest);
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
    pack_head(&mut to, delivery);
    to.push(match delivery.sequence {
        None => VERSION,
        Some(_) => SEQUENCE_VERSION,
    });
    let to = append(&packed, to);
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
    append(&verdicts, to)
}

/// Reads a record.
pub(in crate::redis) fn unpack_record(
    tenant: &TenantId,
    id: &DeliveryId,
    bytes: &[u8],
) -> Result<(Delivery, Vec<Attempt>)> {
    let (head, rest) = Head::unpack(bytes)?;
    let (version, packed) = rest.split_first().ok_or(Damaged)?;
    if !matches!(*version, VERSION | SEQUENCE_VERSION) {
        return Err(Damaged);
    }
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
    let untried = head.attempt == 0 && head.state == DeliveryState::Pending;
    let next_at = time(packed.next_at)?;
    let delivery = Delivery {
        id: id.clone(),
        tenant_id: tenant.clone(),
        event_id: head.event_id,
        event_type: packed.event_type,
        endpoint_id: head.endpoint_id,
        resolved,
        resolver: packed.resolver.map(|used| used.unpack(verdicts.resolver)),
        sequence: head.sequence,
        state: head.state,
        attempt: head.attempt,
        replayed_at_attempt: packed.replayed_at_attempt,
        next_at: if untried {
            next_at.max(head.created_at)
        } else {
            next_at
        },
        created_at: head.created_at,
        updated_at: if untried {
            head.created_at
        } else {
            time(packed.updated_at)?
        },
    };
    Ok((delivery, attempts))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmhook_core::{OnDeadLetter, OrderingKey, PluginUse, Sequence};

    use super::super::samples::{attempt, delivery, event};
    use super::*;

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
        fn damaged_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let tenant = TenantId::new("acme").unwrap();
            let _ = unpack_record(&tenant, &DeliveryId::new("d").unwrap(), &bytes);
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
}
