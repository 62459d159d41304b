//! The stamp of creation: microseconds by the server's clock, as digits.

use std::io::Write as _;

use jiff::Timestamp;

/// Digits of the creation stamp.
pub(in crate::redis) const STAMP: usize = 16;

pub(super) fn pack_stamp(to: &mut Vec<u8>, created_at: Timestamp) {
    write!(to, "{:0STAMP$}", created_at.as_microsecond()).expect("memory takes everything");
}

/// The time of a stamp.
pub(in crate::redis) fn stamp_time(stamp: &[u8]) -> Option<(u64, Timestamp)> {
    let micros: u64 = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    let time = Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok()?;
    Some((micros, time))
}
