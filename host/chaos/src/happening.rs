//! What happened: a fault with its times and what went on meanwhile.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::fault::Fault;
use crate::host::{CONCURRENCY, LEASE, TIMEOUT};
use crate::workload::Store;

/// How long after a delivery's arrival it may be recorded: the receiver answers within half a second, and the
/// machine may be busy.
const RECORDING: Duration = Duration::from_secs(2);
/// The longest that a host waits before it tries to record again.
const BACKOFF: Duration = Duration::from_secs(1);

/// A fault that happened. Times are since the start.
#[derive(Debug)]
pub(crate) struct Happening {
    pub(crate) store: Store,
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    /// Since when recording may have been held up: the start of this fault, or of one just before it.
    pub(crate) held_up: Duration,
    pub(crate) to: Duration,
    /// Events acknowledged during the fault.
    pub(crate) acknowledged: u32,
    /// Deliveries accepted by the receiver during the fault.
    pub(crate) accepted: u32,
    /// How long after its end until the receiver accepted something again.
    pub(crate) recovery: Duration,
    /// Deliveries that the receiver accepted again because of it. Set by the verdict.
    pub(crate) duplicates: usize,
}

impl Happening {
    /// One of which only these times are known.
    #[cfg(test)]
    pub(crate) fn new(store: Store, fault: Fault, from: Duration, to: Duration) -> Self {
        Self {
            store,
            fault,
            from,
            held_up: from,
            to,
            acknowledged: 0,
            accepted: 0,
            recovery: Duration::ZERO,
            duplicates: 0,
        }
    }

    /// How long it lasted.
    pub(crate) fn lasted(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Since when it may have held up recording for a fault that begins at `next`. Hosts wait longer the
    /// longer they were refused, so they catch up some time after its end.
    fn holds_up(&self, next: Duration) -> Option<Duration> {
        let caught_up = self.to + self.lasted().min(BACKOFF) + RECORDING;
        (self.fault.holds_up_recording() && next < caught_up).then_some(self.held_up)
    }

    /// When a receiver may have accepted what it kept a host from recording; `None` if it cannot have done that.
    pub(crate) fn unrecorded(&self) -> Option<RangeInclusive<Duration>> {
        if !self.fault.breaks_leases(self.store, self.lasted()) {
            return None;
        }
        let to = match self.fault {
            // Nothing comes from a host that is dead.
            Fault::HostKilled { .. } => self.from,
            // What was on its way comes when the host goes on, and its lease is over.
            Fault::HostPaused { .. } => self.to + TIMEOUT,
            _ => self.to,
        };
        Some(self.held_up.saturating_sub(RECORDING)..=to + RECORDING)
    }

    /// Whether it can have kept a host from recording what a receiver accepted at `accepted`.
    pub(crate) fn explains(&self, accepted: Duration) -> bool {
        self.unrecorded()
            .is_some_and(|times| times.contains(&accepted))
    }

    /// How many deliveries can be made again because of it.
    pub(crate) fn in_flight(&self) -> usize {
        self.store.hosts() * CONCURRENCY * self.rounds()
    }

    /// How often all that is in flight can have been lost: once, and where nothing is recorded or confirmed
    /// for long, again for each lease that ended meanwhile.
    fn rounds(&self) -> usize {
        if !self.fault.undoes(self.store) && !self.fault.holds_up_recording() {
            return 1;
        }
        let leases = self.lasted().as_secs() / LEASE.as_secs();
        usize::try_from(leases).map_or(1, |leases| 1 + leases)
    }

    /// Whether it can have undone that a delivery was made which came at `arrived`: nobody was told yet
    /// that its event is durable.
    pub(crate) fn unmakes(&self, arrived: Duration) -> bool {
        self.fault.undoes(self.store)
            && (self.from.saturating_sub(RECORDING)..=self.to).contains(&arrived)
    }
}

/// Since when recording may have been held up for a fault that begins at `next`, after those before it. Others
/// may have come between it and the one that did.
pub(crate) fn held_up(before: &[Happening], next: Duration) -> Duration {
    let since = before.iter().filter_map(|it| it.holds_up(next));
    since.min().unwrap_or(next)
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, lasted, recovery] =
            [self.from, self.lasted(), self.recovery].map(|time| time.as_secs_f64());
        let (store, fault) = (self.store, self.fault.name());
        write!(
            f,
            "{store:<9} {fault:<32} at {from:>6.1} s for {lasted:>4.1} s, back after {recovery:.1} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Part;

    fn happening(fault: Fault, from: u64, to: u64) -> Happening {
        let [from, to] = [from, to].map(Duration::from_secs);
        Happening::new(Store::Cluster, fault, from, to)
    }

    #[test]
    fn what_was_not_recorded_yet_when_the_next_fault_began_is_explained_by_it() {
        let of = Part::Stream;
        let pause = Duration::from_secs(1);
        let moved = Fault::SlotMoved {
            of,
            to: 0,
            steps: 1,
            pause,
        };
        let moved = happening(moved, 10, 12);
        let mut killed = happening(Fault::MasterKilled { of }, 13, 18);
        let during_the_move = Duration::from_millis(10_500);
        assert!(!moved.explains(during_the_move) && !killed.explains(during_the_move));
        let stopped = happening(Fault::HostStopped { host: 0 }, 12, 13);
        let before = [moved, stopped];
        killed.held_up = held_up(&before, killed.from);
        assert!(killed.explains(during_the_move));
        assert!(!killed.explains(Duration::from_secs(7)));
        let later = Duration::from_secs(20);
        assert_eq!(held_up(&before, later), later);
        assert_eq!(held_up(&[killed], later), later);
    }
}
