//! The states of a delivery, and which may follow which.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a delivery stands.
///
/// ```text
///            lease                 accepted
/// pending ───────────▶ leased ───────────────▶ succeeded ─┐
///    ▲                 │  ▲ │                             │ replay
///    │ lease expires,  │  │ │ exhausted or permanent      │
///    │ or is released  │  │ └───────────▶ dead_letter ────┤
///    ├─────────────────┤  │                               │
///    │                 ▼  │ lease, when due               │
///    │               failed                               │
///    └────────────────────────────────────────────────────┘
/// ```
/// A lease that expires or is released puts the delivery back where it was, `pending` or `failed`.
/// No other transition exists: see [`DeliveryState::may_become`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waiting for its first attempt, or for its first since a replay.
    Pending,
    /// A worker is at it.
    Leased,
    /// Accepted by the receiver, or skipped by a plugin.
    Succeeded,
    /// Not accepted; will be tried again at `next_at`.
    Failed,
    /// Not accepted, and will not be tried again by itself.
    DeadLetter,
}

impl DeliveryState {
    /// All states, in the order of a delivery's life.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Leased,
        Self::Failed,
        Self::Succeeded,
        Self::DeadLetter,
    ];

    /// The only transitions there are.
    pub fn may_become(self, next: Self) -> bool {
        use DeliveryState::{DeadLetter, Failed, Leased, Pending, Succeeded};
        matches!(
            (self, next),
            (Pending | Failed, Leased)
                | (Leased, Pending | Failed | Succeeded | DeadLetter)
                | (DeadLetter | Succeeded, Pending)
        )
    }

    /// Whether nothing more happens by itself.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::DeadLetter)
    }

    /// The name in wire formats, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.trim().replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == wanted)
            .ok_or_else(|| {
                Error::delivery_field(
                    "state",
                    "expected pending, leased, failed, succeeded or dead_letter",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_transition_exists() {
        use DeliveryState::{DeadLetter, Failed, Leased, Pending, Succeeded};
        let allowed = [
            (Pending, Leased),
            (Failed, Leased),
            (Leased, Pending),
            (Leased, Failed),
            (Leased, Succeeded),
            (Leased, DeadLetter),
            (DeadLetter, Pending),
            (Succeeded, Pending),
        ];
        for from in DeliveryState::ALL {
            for to in DeliveryState::ALL {
                assert_eq!(
                    from.may_become(to),
                    allowed.contains(&(from, to)),
                    "{from} → {to}"
                );
            }
        }
    }
}
