//! A new version beside the one that serves: as a canary for a share of the events, or in the shadow for
//! comparison.

mod candidate;
mod shadow;

use serde::Deserialize;
use serde::de::{self, Deserializer};

pub use candidate::{CandidateStatus, RolloutMode};
pub use shadow::{Comparisons, Difference};

pub(crate) use candidate::Candidate;
pub(crate) use shadow::{Answers, named};

/// Calls after which a canary is promoted, if its manifest says nothing: with one error in a hundred
/// allowed, a version that fails twice as often gets so far once in three hundred times.
const PROMOTE_AFTER: u64 = 1_000;
/// Errors allowed, in percent.
const MAX_ERROR_PERCENT: u32 = 1;

/// `rollout` in a manifest: how a version comes into service while another one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// A share of the events goes to the new version.
    Canary(Canary),
    /// The new version sees events, and nothing that it makes is sent.
    Shadow(ShadowRules),
}

/// The rules of a canary. A trap, a limit exceeded or an answer that cannot be used ends it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Percent of the events, 1 to 99, chosen by a hash of their ids: all endpoints and all attempts of
    /// an event are served alike, on every host.
    pub percent: u32,
    /// Calls after which it is promoted. 1000.
    pub promote_after: u64,
    /// Calls that may fail, in percent of at least a hundred. 1.
    pub max_error_percent: u32,
    /// The most milliseconds that ninety-nine of a hundred calls may take; no bar if absent.
    pub max_p99_ms: Option<u64>,
}

/// The rules of a shadow. It ends as a version in service would: with faults for so many events that
/// such a version is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowRules {
    /// Equal answers in a row after which it is promoted; by hand only if absent.
    pub promote_after: Option<u64>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    canary_percent: Option<u32>,
    #[serde(default)]
    shadow: bool,
    promote_after: Option<u64>,
    max_error_percent: Option<u32>,
    max_p99_ms: Option<u64>,
}

impl<'de> Deserialize<'de> for Rollout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        written.check().map_err(de::Error::custom)
    }
}

impl Written {
    fn check(self) -> Result<Rollout, &'static str> {
        if self.promote_after == Some(0) {
            return Err("expected promote_after above zero");
        }
        match (self.canary_percent, self.shadow) {
            (Some(percent), false) => {
                if !(1..=99).contains(&percent) {
                    return Err("expected canary_percent from 1 to 99");
                }
                let max_error_percent = self.max_error_percent.unwrap_or(MAX_ERROR_PERCENT);
                if max_error_percent > 100 {
                    return Err("expected max_error_percent up to 100");
                }
                Ok(Rollout::Canary(Canary {
                    percent,
                    promote_after: self.promote_after.unwrap_or(PROMOTE_AFTER),
                    max_error_percent,
                    max_p99_ms: self.max_p99_ms,
                }))
            }
            (None, true) if self.max_error_percent.is_some() || self.max_p99_ms.is_some() => {
                Err("max_error_percent and max_p99_ms are for a canary, not for a shadow")
            }
            (None, true) => Ok(Rollout::Shadow(ShadowRules {
                promote_after: self.promote_after,
            })),
            _ => Err("expected either canary_percent or shadow = true"),
        }
    }
}
