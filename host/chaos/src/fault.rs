//! The faults that there are.

use std::time::Duration;

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

impl Fault {
    /// How many there are.
    #[cfg(test)]
    pub(crate) const KINDS: usize = 15;

    /// In a few words, for the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::HostKilled { .. } => "host killed",
            Self::HostPaused { .. } => "host paused past its leases",
            Self::HostStopped { .. } => "host stopped and started",
            Self::RedisKilled { .. } => "Redis killed",
            Self::RedisReadOnly { .. } => "Redis read-only",
            Self::RedisFull { .. } => "Redis at its memory limit",
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

    /// How long it lasts, as far as it is planned.
    pub(crate) fn duration(&self) -> Duration {
        match self {
            Self::HostKilled { down, .. } | Self::RedisKilled { down } => *down,
            Self::HostPaused { pause, .. } => *pause,
            Self::RedisReadOnly { lasts }
            | Self::RedisFull { lasts }
            | Self::NetworkDelayed { lasts, .. }
            | Self::NetworkCut { lasts, .. }
            | Self::NetworkSilent { lasts, .. }
            | Self::ReceiverDown { lasts }
            | Self::ReceiverFailing { lasts }
            | Self::DiskFull { lasts } => *lasts,
            Self::HostStopped { .. }
            | Self::ClientsCut
            | Self::FunctionsFlushed
            | Self::GroupDestroyed => Duration::ZERO,
        }
    }

    /// Whether something is killed.
    #[cfg(test)]
    pub(crate) fn kills(&self) -> bool {
        matches!(self, Self::HostKilled { .. } | Self::RedisKilled { .. })
    }

    /// Whether it can keep a host from recording what a receiver accepted until the lease has ended,
    /// so that the receiver gets it twice. The others must not cause a single duplicate: a lost
    /// answer is asked for again, and a host that is asked to end records first.
    pub(crate) fn breaks_leases(&self) -> bool {
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
            Self::HostStopped { .. }
            | Self::ClientsCut
            | Self::FunctionsFlushed
            | Self::GroupDestroyed
            | Self::NetworkDelayed { .. }
            | Self::ReceiverFailing { .. } => false,
        }
    }
}
