//! Ordering on request: deliveries that go to an endpoint one after the other.
//!
//! An endpoint, or a resolver plugin for an endpoint that it makes, asks for it. Deliveries to one endpoint
//! with one key are a sequence: in the order in which they were enqueued, one is under way at a time, and
//! the next begins when the one before has succeeded or is given up.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::OrderingKey;

/// What an endpoint's deliveries are put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderBy {
    /// The event's `ordering_key`; events without one are in no order.
    Key,
    /// All in one sequence.
    Endpoint,
}

/// What becomes of a sequence when one of it is a dead letter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDeadLetter {
    /// The next one goes.
    #[default]
    Skip,
    /// Nothing goes until the dead letter is replayed and succeeds, or is skipped by hand. Until then it is
    /// kept, whatever the retention.
    Block,
}

/// The order that an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointOrdering {
    /// What makes a sequence.
    pub by: OrderBy,
    /// What becomes of it when one of it is a dead letter.
    #[serde(default)]
    pub on_dead_letter: OnDeadLetter,
    /// After so many attempts a delivery is a dead letter, though the retry policy has more: the ones
    /// behind it wait for no longer. The retry policy alone decides if missing.
    #[serde(default)]
    pub max_attempts: Option<NonZeroU32>,
}

impl EndpointOrdering {
    /// The sequence of an event's delivery, if it is to be in one.
    pub fn sequence(&self, event: &Event) -> Option<Sequence> {
        let key = match self.by {
            OrderBy::Endpoint => None,
            OrderBy::Key => Some(event.ordering_key.clone()?),
        };
        Some(Sequence {
            key,
            on_dead_letter: self.on_dead_letter,
            max_attempts: self.max_attempts,
        })
    }
}

/// The sequence that a delivery is in, among those to its endpoint, and the rules that held when it was
/// made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// What its deliveries have in common; `None` when all of the endpoint are one sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OrderingKey>,
    /// What becomes of it when this delivery is a dead letter.
    #[serde(default)]
    pub on_dead_letter: OnDeadLetter,
    /// After so many attempts since it was made or replayed this delivery is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<NonZeroU32>,
}

impl Sequence {
    /// The sequence of a key, with the default rules.
    pub fn of(key: OrderingKey) -> Self {
        Self {
            key: Some(key),
            on_dead_letter: OnDeadLetter::default(),
            max_attempts: None,
        }
    }

    /// The key as stores name it: empty for the whole endpoint, which no key is.
    pub fn name(&self) -> &str {
        self.key.as_ref().map_or("", OrderingKey::as_str)
    }

    /// Whether a dead letter of it holds up what is behind.
    pub fn blocks(&self) -> bool {
        self.on_dead_letter == OnDeadLetter::Block
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::event::EventDraft;

    fn event(key: Option<&str>) -> Event {
        EventDraft {
            id: "evt_1".into(),
            tenant: "acme".into(),
            event_type: "invoice.paid".into(),
            payload: Bytes::from_static(b"1"),
            ordering_key: key.map(str::to_owned),
            ..EventDraft::default()
        }
        .accept(Timestamp::UNIX_EPOCH, 1024)
        .unwrap()
    }

    #[test]
    fn an_endpoint_is_one_sequence_or_one_for_each_key() {
        let ordering = |by| EndpointOrdering {
            by,
            on_dead_letter: OnDeadLetter::Block,
            max_attempts: None,
        };
        let keyed = ordering(OrderBy::Key);
        assert_eq!(keyed.sequence(&event(None)), None);
        let sequence = keyed.sequence(&event(Some(" order-7 "))).unwrap();
        assert_eq!((sequence.name(), sequence.blocks()), ("order-7", true));
        let whole = ordering(OrderBy::Endpoint);
        for key in [None, Some("order-7")] {
            assert_eq!(whole.sequence(&event(key)).unwrap().name(), "");
        }
    }

    #[test]
    fn a_sequence_survives_json() {
        let sequence = Sequence::of(OrderingKey::new("order-7").unwrap());
        let json = serde_json::to_string(&sequence).unwrap();
        assert_eq!(json, r#"{"key":"order-7","on_dead_letter":"skip"}"#);
        assert_eq!(serde_json::from_str::<Sequence>(&json).unwrap(), sequence);
    }
}
