//! Names of the metrics, in one place. Labels are bounded: event type, outcome, status class.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use metrics::Counter;
use wasmhook_core::label::safe_label;
use wasmhook_core::ports::MetricsRecorder;
use wasmhook_core::{EventType, Outcome, StatusClass};

/// Attempts by event type, outcome and status class.
pub const ATTEMPTS: &str = "wasmhook_attempts_total";
/// Deliveries that became dead letters.
pub const DEAD_LETTERS: &str = "wasmhook_dead_letters_total";
/// Events by what became of them: `enqueued`, `duplicate`, `unmatched`, `rejected`.
pub const EVENTS: &str = "wasmhook_events_total";
/// Outcomes refused because the lease was lost.
pub const LEASES_LOST: &str = "wasmhook_leases_lost_total";
/// Resolver calls that failed.
pub const RESOLVER_FAILURES: &str = "wasmhook_resolver_failures_total";
/// Deliveries in each state, as a gauge.
pub const DELIVERIES: &str = "wasmhook_deliveries";
/// What checks of the store found and whether it was mended, by kind.
pub const FINDINGS: &str = "wasmhook_queue_findings_total";
/// 1 while the queue is full and no events are taken in, otherwise 0, as a gauge.
pub const QUEUE_FULL: &str = "wasmhook_queue_full";
/// Plugins that serve, and plugins whose file was refused, as a gauge.
pub const PLUGINS: &str = "wasmhook_plugins";

/// Counts attempts in the process-wide recorder.
#[derive(Default)]
pub struct AttemptMetrics {
    /// Counters that were used before: finding one by its labels costs more than counting.
    known: ArcSwap<HashMap<(EventType, Outcome, StatusClass), Counter>>,
}

impl MetricsRecorder for AttemptMetrics {
    fn attempt(&self, event_type: &EventType, outcome: Outcome, status_class: StatusClass) {
        let key = (event_type.clone(), outcome, status_class);
        if let Some(counter) = self.known.load().get(&key) {
            counter.increment(1);
            return;
        }
        let counter = metrics::counter!(
            ATTEMPTS,
            "type" => safe_label(event_type.as_str()),
            "outcome" => outcome.as_str(),
            "status_class" => status_class.as_str()
        );
        counter.increment(1);
        // Event types are the catalog's, so the map stays small.
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(key.clone(), counter.clone());
            known
        });
    }
}
