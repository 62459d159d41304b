//! What a record says of its sequence: whether a dead letter blocks it (b) or is skipped (s), after how many
//! attempts it is one, when the delivery is due at the soonest, and the key. The functions go by it.

use std::io::Write as _;

use wasmhook_core::{Delivery, DeliveryState, OnDeadLetter, OrderingKey, Sequence};

use super::{Damaged, Result};

pub(super) fn pack_sequence(to: &mut Vec<u8>, sequence: &Sequence, delivery: &Delivery) {
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

/// `None` if the text is empty.
pub(super) fn unpack_sequence(text: &str) -> Result<Option<Sequence>> {
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
