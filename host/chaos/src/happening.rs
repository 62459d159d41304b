//! What happened: a fault with its times and what went on meanwhile.

use std::time::Duration;

use crate::fault::Fault;
use crate::host::TIMEOUT;
use crate::workload::Store;

/// How long recording may take after a receiver has answered, on a busy machine.
const RECORDING: Duration = Duration::from_secs(1);

/// A fault that happened. Times are since the start.
#[derive(Debug)]
pub(crate) struct Happening {
    pub(crate) store: Store,
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
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
    /// How long it lasted.
    pub(crate) fn lasted(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Whether it can have kept a host from recording what a receiver accepted at `accepted`.
    pub(crate) fn explains(&self, accepted: Duration) -> bool {
        if !self.fault.breaks_leases(self.store, self.lasted()) {
            return false;
        }
        let to = match self.fault {
            // Nothing comes from a host that is dead.
            Fault::HostKilled { .. } => self.from,
            // What was on its way comes when the host goes on, and its lease is over.
            Fault::HostPaused { .. } => self.to + TIMEOUT,
            _ => self.to,
        };
        (self.from.saturating_sub(RECORDING)..=to + RECORDING).contains(&accepted)
    }

    /// Whether it can have undone that a delivery was made which came at `arrived`: nobody was told yet
    /// that its event is durable.
    pub(crate) fn unmakes(&self, arrived: Duration) -> bool {
        self.fault.undoes(self.store)
            && (self.from.saturating_sub(RECORDING)..=self.to).contains(&arrived)
    }
}
