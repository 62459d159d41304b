//! What is pushed and what must come of it: event `n` is a function of `n`.

use std::fmt;
use std::time::Duration;

use wasmhook_core::delivery::default_id;
use wasmhook_core::{EndpointId, EventId, TenantId};

/// Hosts on the one Redis.
pub(crate) const HOSTS: usize = 2;
/// The tenants of a site.
pub(crate) const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
/// The endpoints of every tenant, with what each subscribes to.
pub(crate) const ENDPOINTS: [(&str, &str); 2] = [("main", "*"), ("audit", "order.created")];
/// The catalog.
pub(crate) const TYPES: [&str; 2] = ["invoice.paid", "order.created"];

/// The sites, by their store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Redis,
    Embedded,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Redis => "Redis",
            Self::Embedded => "embedded",
        })
    }
}

/// A delivery's id, without its prefix.
pub(crate) type Id = u128;

/// The event with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed(pub(crate) u32);

impl Pushed {
    /// Which site it goes to: one in five to the embedded one.
    pub(crate) fn store(self) -> Store {
        if self.0.is_multiple_of(5) {
            Store::Embedded
        } else {
            Store::Redis
        }
    }

    pub(crate) fn id(self) -> String {
        format!("evt_{}", self.0)
    }

    pub(crate) fn tenant(self) -> &'static str {
        TENANTS[self.0 as usize / 5 % TENANTS.len()]
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
