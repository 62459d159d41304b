//! The faults that there are.

use std::time::Duration;

use crate::host::RECORDING_ROOM;
use crate::workload::Store;

/// Something that happens to a site, and ends.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A host is killed with SIGKILL and started again.
    HostKilled { host: usize, down: Duration },
    /// A host is stopped with SIGSTOP for longer than its leases last, and goes on.
    HostPaused { host: usize, pause: Duration },
    /// A host is asked to end, as in an upgrade, and started again.
    HostStopped { host: usize },
    /// Redis is killed with SIGKILL and started again on its append-only file.
    RedisKilled { down: Duration },
    /// Redis follows a master that is not there: it refuses to write.
    RedisReadOnly { lasts: Duration },
    /// Redis is at its memory limit.
    RedisFull { lasts: Duration },
    /// A master is killed with SIGKILL, its replica is promoted, and it comes back.
    MasterKilled { of: Part },
    /// A master is stopped with SIGSTOP, its replica is promoted, and it goes on.
    MasterPaused { of: Part },
    /// A replica is promoted because somebody asks for it.
    ReplicaPromoted { of: Part },
    /// A replica is promoted that nobody asked to be, for its master seemed dead: on a machine that is
    /// too busy. No plan has it.
    ReplicaPromotedUnasked,
    /// A replica is killed with SIGKILL and started again: nothing is acknowledged meanwhile.
    ReplicaKilled { of: Part, down: Duration },
    /// A slot moves to another master, so many parts of its keys at a time.
    SlotMoved {
        of: Part,
        /// Which of the other masters, counted around.
        to: usize,
        steps: u32,
        /// Before each step and after the last.
        pause: Duration,
    },
    /// Redis closes all connections.
    ClientsCut,
    /// Redis forgets the functions.
    FunctionsFlushed,
    /// The stream's consumer group is destroyed, and with it what it knew to be unacknowledged.
    GroupDestroyed,
    /// Bytes between a host and Redis take longer.
    NetworkDelayed {
        host: usize,
        by: Duration,
        lasts: Duration,
    },
    /// Connections between a host and Redis are closed, and no new one is let through.
    NetworkCut { host: usize, lasts: Duration },
    /// Bytes between a host and Redis vanish, and nobody is told.
    NetworkSilent { host: usize, lasts: Duration },
    /// The receiver closes every connection.
    ReceiverDown { lasts: Duration },
    /// The receiver answers 500.
    ReceiverFailing { lasts: Duration },
    /// The disk of the embedded store is full.
    DiskFull { lasts: Duration },
}

/// Keys that are in one place: in a cluster those of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The stream that producers push to.
    Stream,
    /// A shard of the queue.
    Shard(u16),
}

impl Fault {
    /// How many there are in plans.
    #[cfg(test)]
    pub(crate) const KINDS: usize = 20;

    /// In a few words, for the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::HostKilled { .. } => "host killed",
            Self::HostPaused { .. } => "host paused past its leases",
            Self::HostStopped { .. } => "host stopped and started",
            Self::RedisKilled { .. } => "Redis killed",
            Self::RedisReadOnly { .. } => "Redis read-only",
            Self::RedisFull { .. } => "Redis at its memory limit",
            Self::MasterKilled { .. } => "master killed, replica promoted",
            Self::MasterPaused { .. } => "master paused, replica promoted",
            Self::ReplicaPromoted { .. } => "replica promoted on request",
            Self::ReplicaPromotedUnasked => "replica promoted, unasked",
            Self::ReplicaKilled { .. } => "replica killed",
            Self::SlotMoved {
                of: Part::Stream, ..
            } => "slot of the stream moved",
            Self::SlotMoved { .. } => "slot of a shard moved",
            Self::ClientsCut => "Redis cuts its clients",
            Self::FunctionsFlushed => "functions flushed",
            Self::GroupDestroyed => "consumer group destroyed",
            Self::NetworkDelayed { .. } => "network slow",
            Self::NetworkCut { .. } => "network cut",
            Self::NetworkSilent { .. } => "network silent",
            Self::ReceiverDown { .. } => "receiver down",
            Self::ReceiverFailing { .. } => "receiver answers 500",
            Self::DiskFull { .. } => "disk full",
        }
    }

    /// How long it lasts: as far as it is planned, and as servers usually take to agree.
    pub(crate) fn duration(&self) -> Duration {
        match self {
            Self::HostKilled { down, .. }
            | Self::RedisKilled { down }
            | Self::ReplicaKilled { down, .. } => *down,
            Self::HostPaused { pause, .. } => *pause,
            Self::RedisReadOnly { lasts }
            | Self::RedisFull { lasts }
            | Self::NetworkDelayed { lasts, .. }
            | Self::NetworkCut { lasts, .. }
            | Self::NetworkSilent { lasts, .. }
            | Self::ReceiverDown { lasts }
            | Self::ReceiverFailing { lasts }
            | Self::DiskFull { lasts } => *lasts,
            Self::MasterKilled { .. }
            | Self::MasterPaused { .. }
            | Self::ReplicaPromoted { .. } => Duration::from_secs(10),
            Self::SlotMoved { steps, pause, .. } => *pause * (steps + 1),
            Self::HostStopped { .. }
            | Self::ReplicaPromotedUnasked
            | Self::ClientsCut
            | Self::FunctionsFlushed
            | Self::GroupDestroyed => Duration::ZERO,
        }
    }

    /// Whether something is killed.
    #[cfg(test)]
    pub(crate) fn kills(&self) -> bool {
        matches!(
            self,
            Self::HostKilled { .. }
                | Self::RedisKilled { .. }
                | Self::MasterKilled { .. }
                | Self::ReplicaKilled { .. }
        )
    }

    /// Whether it can keep a host from recording what a receiver accepted until the lease has ended,
    /// so that the receiver gets it twice; `lasted` is how long it did. The others must not cause a
    /// single duplicate: a lost answer is asked for again, and a host that is asked to end records first.
    pub(crate) fn breaks_leases(&self, store: Store, lasted: Duration) -> bool {
        match self {
            Self::HostKilled { .. }
            | Self::HostPaused { .. }
            | Self::RedisKilled { .. }
            | Self::RedisReadOnly { .. }
            | Self::RedisFull { .. }
            | Self::NetworkCut { .. }
            | Self::NetworkSilent { .. }
            | Self::ReceiverDown { .. }
            | Self::DiskFull { .. } => true,
            // Nothing is recorded while the slot is on the move, or confirmed without the replica.
            Self::SlotMoved { .. } | Self::ReplicaKilled { .. } => lasted > RECORDING_ROOM,
            Self::MasterKilled { .. }
            | Self::MasterPaused { .. }
            | Self::ReplicaPromotedUnasked
            | Self::ReplicaPromoted { .. } => self.undoes(store),
            Self::HostStopped { .. }
            | Self::ClientsCut
            | Self::FunctionsFlushed
            | Self::GroupDestroyed
            | Self::NetworkDelayed { .. }
            | Self::ReceiverFailing { .. } => false,
        }
    }

    /// Whether hosts record less or nothing meanwhile, though no lease need be broken by that.
    pub(crate) fn holds_up_recording(&self) -> bool {
        matches!(
            self,
            Self::SlotMoved { .. } | Self::ReplicaKilled { .. } | Self::ReplicaPromoted { .. }
        )
    }

    /// Whether it undoes what was done, and acknowledged to nobody, since the replica that is promoted
    /// had it last. A cluster that is asked for a promotion holds up writes until the replica has all.
    pub(crate) fn undoes(&self, store: Store) -> bool {
        match self {
            Self::MasterKilled { .. }
            | Self::MasterPaused { .. }
            | Self::ReplicaPromotedUnasked => true,
            Self::ReplicaPromoted { .. } => store == Store::Sentinels,
            _ => false,
        }
    }
}
