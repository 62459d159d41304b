//! When something happened, as exactly as a caller can know it.

use std::time::Duration;

use jiff::Timestamp;

/// Stores keep some times in whole milliseconds, and a server may read its clock a little before it
/// runs what it was asked.
const BLUR: i64 = 2_000;

/// A time of the store's clock that lies somewhere from `from` to `to`, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Window {
    /// An exactly known time.
    pub(crate) fn at(time: Timestamp) -> Self {
        let at = time.as_microsecond();
        Self { from: at, to: at }
    }

    /// The window that lies so much later.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self {
            from: self.from.saturating_add(micros),
            to: self.to.saturating_add(micros),
        }
    }

    /// How long it may have lasted.
    pub(crate) fn length(self) -> Duration {
        Duration::from_micros(self.to.abs_diff(self.from))
    }

    /// Whether this was before `other`, wherever in their windows both lie.
    pub(crate) fn surely_before(self, other: Self) -> bool {
        self.to.saturating_add(BLUR) < other.from
    }

    /// Whether this may have been before `other`.
    pub(crate) fn maybe_before(self, other: Self) -> bool {
        !other.surely_before(self)
    }

    /// The longest that can lie between `self` and `later`.
    pub(crate) fn at_most_until(self, later: Self) -> Duration {
        let micros = later.to.saturating_add(BLUR).saturating_sub(self.from);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}
