//! What a check of a store's invariants is asked for, and what it found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Examples kept of each kind of finding.
pub const EXAMPLES: usize = 5;

/// How to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckRequest {
    /// Whether to mend what can be mended.
    pub repair: bool,
    /// Whether to leave the store most of its time for its work: a check then takes longer.
    pub gentle: bool,
}

/// What may be wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// An open delivery that is neither due, nor waiting for its time, nor leased: nobody would ever
    /// send it.
    Lost,
    /// An open delivery in two places: it would be sent twice.
    Doubled,
    /// A place in the queue that no open delivery belongs to.
    Stray,
    /// Due deliveries that no host would be given, though there is room for them.
    Unserved,
    /// A sequence in which it is nobody's turn, or that of several, or that does not agree with its
    /// deliveries.
    Sequence,
    /// A number of deliveries in flight that is not the number of leases.
    InFlight,
    /// A count of deliveries that is not the number of records.
    Counter,
    /// An open delivery whose event is gone, so that it can never be sent. A repair makes it a dead
    /// letter.
    EventMissing,
    /// A delivery that the list of its tenant's deliveries lacks. Only lists are affected.
    Unlisted,
    /// An index of failed deliveries, of dead letters or of tenants that does not agree with the records.
    Index,
    /// A finished delivery that retention would never find.
    Unretained,
    /// A record that this version cannot read; it is left alone.
    Unreadable,
    /// The store's file is damaged below the level of records.
    Damaged,
}

impl Finding {
    /// A label for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Stray => "stray",
            Self::Unserved => "unserved",
            Self::Sequence => "sequence",
            Self::InFlight => "in_flight",
            Self::Counter => "counter",
            Self::EventMissing => "event_missing",
            Self::Unlisted => "unlisted",
            Self::Index => "index",
            Self::Unretained => "unretained",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Lost => "open deliveries in no place of the queue",
            Self::Doubled => "open deliveries in two places of the queue",
            Self::Stray => "places in the queue without an open delivery",
            Self::Unserved => "due deliveries that no host would be given",
            Self::Sequence => "sequences without a turn, or with more than one",
            Self::InFlight => "numbers in flight that are not those of the leases",
            Self::Counter => "counts that are not those of the records",
            Self::EventMissing => "open deliveries whose event is gone",
            Self::Unlisted => "deliveries missing in their tenant's list",
            Self::Index => "entries of indexes that do not agree with the records",
            Self::Unretained => "finished deliveries that retention would not find",
            Self::Unreadable => "records that cannot be read",
            Self::Damaged => "damage to the store's file",
        }
    }
}

/// One thing that was found, without anything of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The tenant; empty for what belongs to none.
    pub tenant: String,
    /// The delivery id, or the endpoint, counter or message that it is about.
    pub subject: String,
}

/// All findings of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// How many of them were mended.
    pub repaired: u64,
    /// The first few of them, at most [`EXAMPLES`].
    pub examples: Vec<Example>,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Records of deliveries.
    pub deliveries: u64,
    /// Those of them that were open.
    pub open: u64,
    /// Lanes: what is due for one endpoint.
    pub lanes: u64,
    /// Due deliveries in lanes.
    pub due: u64,
    /// Deliveries that wait for their time.
    pub waiting: u64,
    /// Deliveries that wait for their turn in a sequence.
    #[serde(default)]
    pub behind: u64,
    /// Leases.
    pub leased: u64,
}

/// The outcome of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What was looked at.
    pub looked: Looked,
    /// What was found; kinds that were not found are absent.
    pub findings: BTreeMap<Finding, Found>,
}

impl CheckReport {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// How much was found and not mended.
    pub fn left(&self) -> u64 {
        let left = |found: &Found| found.count.saturating_sub(found.repaired);
        self.findings.values().map(left).sum()
    }

    /// Adds a finding.
    pub(crate) fn found(&mut self, finding: Finding, tenant: &str, subject: &str, repaired: bool) {
        let found = self.findings.entry(finding).or_default();
        found.count += 1;
        found.repaired += u64::from(repaired);
        if found.examples.len() < EXAMPLES {
            found.examples.push(Example {
                tenant: tenant.to_owned(),
                subject: subject.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_all_and_names_a_few() {
        let mut report = CheckReport::default();
        assert!(report.is_sound());
        for n in 0..20 {
            report.found(Finding::Lost, "acme", &format!("whdel_{n}"), n < 15);
        }
        assert!(!report.is_sound());
        assert_eq!(report.left(), 5);
        assert_eq!(report.findings[&Finding::Lost].count, 20);
        assert_eq!(report.findings[&Finding::Lost].examples.len(), EXAMPLES);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"lost\":{\"count\":20"), "{json}");
        assert_eq!(serde_json::from_str::<CheckReport>(&json).unwrap(), report);
    }
}
