//! What one tenant may take of what all share.

use std::num::{NonZeroU8, NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many turns a tenant gets for one of a tenant of which nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(NonZeroU8);

impl Weight {
    /// The largest: beyond it a turn is longer than what a host asks for at once.
    pub const MAX: u8 = 100;

    /// Accepts 1 to [`Self::MAX`].
    pub fn new(weight: u8) -> Result<Self> {
        NonZeroU8::new(weight)
            .filter(|weight| weight.get() <= Self::MAX)
            .map(Self)
            .ok_or_else(|| Error::event_field("weight", "expected 1 to 100"))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU8::MIN)
    }
}

impl TryFrom<u8> for Weight {
    type Error = Error;
    fn try_from(weight: u8) -> Result<Self> {
        Self::new(weight)
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.get()
    }
}

/// A tenant's part of the deliveries that are in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Its share of the turns while others have due deliveries too.
    #[serde(default)]
    pub weight: Weight,
    /// At most this many deliveries of the tenant are in flight, over all endpoints and hosts; no such
    /// limit if missing. Only the places of one endpoint are limited then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<NonZeroU32>,
}

impl Quota {
    /// Whether it says no more than that of a tenant of which nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_one_to_a_hundred() {
        assert_eq!(Weight::default().get(), 1);
        assert_eq!(Weight::new(100).unwrap().get(), 100);
        for bad in [0, 101] {
            assert!(Weight::new(bad).is_err());
        }
        assert!(Quota::default().is_default());
    }
}
