//! Packed records: what the functions keep without looking into it.
//!
//! The record of a delivery starts with a head of plain text, which the functions do look at; the rest of
//! it, and all of an event but its payload, is in postcard. Tenant and id are in the key. Times are
//! milliseconds, except an event's own.

mod attempts;
mod event;
mod head;
mod record;
#[cfg(test)]
mod samples;
mod sequence;
mod stamp;

use jiff::Timestamp;
use serde::Serialize;

pub use self::attempts::{MAX_ATTEMPTS, MAX_EXCERPT};
pub(super) use self::event::{pack_event, unpack_event};
pub(super) use self::record::{pack_record, pack_rest, unpack_record};
pub(super) use self::stamp::{STAMP, stamp_time};

/// Why bytes are not a record; the caller knows which.
#[derive(Debug)]
pub(super) struct Damaged;

type Result<T> = std::result::Result<T, Damaged>;

fn time(ms: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| Damaged)
}

/// Appends something to `start`.
fn append<T: Serialize>(value: &T, start: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, start).expect("plain data is always packed")
}
