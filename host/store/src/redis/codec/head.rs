//! The head of a record: what the functions look at (see `lua/layout.lua`).
//!
//! The digits of the creation stamp, a letter for the state, then event, endpoint, attempt and sequence,
//! each ended by a zero byte.

use std::io::Write as _;

use jiff::Timestamp;
use wasmhook_core::{Delivery, DeliveryState, EndpointId, EventId, Sequence};

use super::sequence::{pack_sequence, unpack_sequence};
use super::stamp::{STAMP, stamp_time};
use super::{Damaged, Result};

/// See the module.
pub(super) struct Head {
    pub(super) created_at: Timestamp,
    pub(super) state: DeliveryState,
    pub(super) event_id: EventId,
    pub(super) endpoint_id: EndpointId,
    pub(super) attempt: u32,
    pub(super) sequence: Option<Sequence>,
}

impl Head {
    /// Reads it, and returns what follows it.
    pub(super) fn unpack(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let (stamp, rest) = bytes.split_at_checked(STAMP).ok_or(Damaged)?;
        let (_, created_at) = stamp_time(stamp).ok_or(Damaged)?;
        let (letter, rest) = rest.split_first().ok_or(Damaged)?;
        let mut parts = rest.splitn(5, |byte| *byte == 0);
        let mut text = || std::str::from_utf8(parts.next().ok_or(Damaged)?).map_err(|_| Damaged);
        let head = Self {
            created_at,
            state: state(*letter)?,
            event_id: EventId::new(text()?).map_err(|_| Damaged)?,
            endpoint_id: EndpointId::new(text()?).map_err(|_| Damaged)?,
            attempt: text()?.parse().map_err(|_| Damaged)?,
            sequence: unpack_sequence(text()?)?,
        };
        Ok((head, parts.next().ok_or(Damaged)?))
    }
}

/// Appends the head of a delivery after its stamp.
pub(super) fn pack_head(to: &mut Vec<u8>, delivery: &Delivery) {
    write!(
        to,
        "{}{}\0{}\0{}\0",
        letter(delivery.state),
        delivery.event_id,
        delivery.endpoint_id,
        delivery.attempt
    )
    .expect("memory takes everything");
    if let Some(sequence) = &delivery.sequence {
        pack_sequence(to, sequence, delivery);
    }
    to.push(0);
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
