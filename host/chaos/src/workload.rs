//! What is pushed and what must come of it: event `n` is a function of `n`.

use std::fmt;
use std::time::Duration;

use wasmhook_core::delivery::default_id;
use wasmhook_core::{EndpointId, EventId, TenantId};

/// The beginning of every key, the stream that producers push to, and its consumer group: the defaults.
pub(crate) const PREFIX: &str = "wasmhook";
pub(crate) const STREAM: &str = "wasmhook:events";
pub(crate) const GROUP: &str = "wasmhook";
/// Shards of a queue on Redis.
pub(crate) const SHARDS: u16 = 4;
/// The tenants of a site. On Redis each shard has one.
pub(crate) const TENANTS: [&str; 4] = ["acme", "initech", "soylent", "wonka"];
/// The endpoints of every tenant, with what each subscribes to.
pub(crate) const ENDPOINTS: [(&str, &str); 2] = [("main", "*"), ("audit", "order.created")];
/// The catalog.
pub(crate) const TYPES: [&str; 2] = ["invoice.paid", "order.created"];

/// The sites, by what their queue is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Store {
    /// One Redis.
    Redis,
    /// A Redis master and its replica, watched by Sentinels.
    Sentinels,
    /// A Redis Cluster of three masters, each with a replica.
    Cluster,
    /// A file of the host's own.
    Embedded,
}

impl Store {
    pub(crate) const ALL: [Self; 4] = [Self::Redis, Self::Sentinels, Self::Cluster, Self::Embedded];

    /// How many hosts work on it.
    pub(crate) fn hosts(self) -> usize {
        match self {
            Self::Redis | Self::Sentinels | Self::Cluster => 2,
            Self::Embedded => 1,
        }
    }

    /// Its part of all events and kills, in proportion to the others'.
    pub(crate) fn weight(self) -> usize {
        match self {
            Self::Redis | Self::Sentinels | Self::Cluster => 3,
            Self::Embedded => 2,
        }
    }

    /// How many finished deliveries of each tenant its hosts keep, of so many events. Where all are kept, all can
    /// be looked at in the end; the other sites keep three in eight, so that removing meets every fault too.
    pub(crate) fn kept(self, events: usize) -> usize {
        match self {
            Self::Redis | Self::Cluster => 100_000.max(events),
            Self::Sentinels | Self::Embedded => events / 8,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Redis => "Redis",
            Self::Sentinels => "Sentinels",
            Self::Cluster => "Cluster",
            Self::Embedded => "embedded",
        })
    }
}

/// A delivery's id, without its prefix.
pub(crate) type Id = u128;

/// The event with this number on its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed(pub(crate) u32);

impl Pushed {
    pub(crate) fn id(self) -> String {
        format!("evt_{}", self.0)
    }

    pub(crate) fn tenant(self) -> &'static str {
        TENANTS[self.0 as usize % TENANTS.len()]
    }

    pub(crate) fn event_type(self) -> &'static str {
        TYPES[usize::from(self.0.is_multiple_of(3))]
    }

    /// Two events in seven are to arrive in order, by one of some keys: while one waits, others go.
    pub(crate) fn ordering_key(self) -> Option<String> {
        (self.0 % 7 < 2).then(|| format!("key_{}", self.0 % 29))
    }

    pub(crate) fn payload(self) -> String {
        format!(
            "{{\"number\": {}, \"text\": \"{}\"}}",
            self.0,
            "x".repeat(64)
        )
    }

    /// The deliveries that it must have.
    pub(crate) fn deliveries(self) -> impl Iterator<Item = Id> {
        let wanted =
            move |(_, events): &(&str, &str)| *events == "*" || *events == self.event_type();
        ENDPOINTS
            .into_iter()
            .filter(wanted)
            .map(move |(endpoint, _)| {
                let delivery = default_id(
                    &TenantId::new(self.tenant()).expect("the tenants' names are names"),
                    &EventId::new(self.id()).expect("a word and a number are an id"),
                    &EndpointId::new(endpoint).expect("the endpoints' names are names"),
                );
                id(delivery.as_str()).expect("a default id is hexadecimal")
            })
    }
}

/// A delivery's id as a number.
pub(crate) fn id(text: &str) -> Option<Id> {
    Id::from_str_radix(text.strip_prefix("whdel_")?, 16).ok()
}

/// Whether the receiver refuses this delivery for good, so that it must become a dead letter.
pub(crate) fn is_unwanted(id: Id) -> bool {
    id.is_multiple_of(50)
}

/// How long the receiver takes to answer: up to half a second, so that always some are on their way.
pub(crate) fn slowness(id: Id) -> Duration {
    let part = u64::try_from(id % 11).unwrap_or(0);
    Duration::from_millis(part * 50)
}

/// Whether the receiver answers 500 to the first attempt.
pub(crate) fn is_hard_to_please(id: Id) -> bool {
    id % 20 == 1
}
