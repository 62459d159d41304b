//! What one tenant may take of what all share.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A tenant's part of the deliveries that are in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
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
