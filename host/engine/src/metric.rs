//! Names of the metrics, in one place. Labels are bounded: event type, outcome, status class.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, Unit, describe_counter, describe_gauge, describe_histogram};
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
/// Endpoints that stall and have fewer deliveries in flight for that, as a gauge.
pub const STALLING: &str = "wasmhook_stalling_endpoints";
/// What checks of the store found and whether it was mended, by kind.
pub const FINDINGS: &str = "wasmhook_queue_findings_total";
/// 1 while the queue is full and no events are taken in, otherwise 0, as a gauge.
pub const QUEUE_FULL: &str = "wasmhook_queue_full";
/// Plugins that serve, and plugins whose file was refused, as a gauge.
pub const PLUGINS: &str = "wasmhook_plugins";

/// How long an attempt took, plugins included, in seconds, as a histogram.
pub const ATTEMPT_DURATION: &str = "wasmhook_attempt_duration_seconds";
/// How long after it was due an attempt began, in seconds, as a histogram.
pub const DELIVERY_DELAY: &str = "wasmhook_delivery_delay_seconds";
/// Calls of the store that failed, by what the host wanted to do.
pub const STORE_FAILURES: &str = "wasmhook_store_failures_total";

/// Upper bounds of [`ATTEMPT_DURATION`], in seconds: to the longest that `delivery.timeout` usually is.
pub const DURATION_BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Upper bounds of [`DELIVERY_DELAY`], in seconds: from what a quiet host takes to what an outage does.
pub const DELAY_BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0,
];

/// Says in the process-wide recorder what each metric is.
pub fn describe() {
    describe_counter!(
        ATTEMPTS,
        "Attempts by event type, outcome and status class."
    );
    describe_counter!(DEAD_LETTERS, "Deliveries that became dead letters.");
    describe_counter!(EVENTS, "Events by what became of them.");
    describe_counter!(LEASES_LOST, "Outcomes refused because the lease was lost.");
    describe_counter!(RESOLVER_FAILURES, "Calls of resolvers that failed.");
    describe_counter!(STORE_FAILURES, "Calls of the store that failed, by task.");
    describe_counter!(
        FINDINGS,
        "What checks of the queue found, and whether it was mended."
    );
    describe_gauge!(DELIVERIES, "Deliveries in the whole store, by state.");
    describe_gauge!(
        STALLING,
        "Endpoints of which attempts lately got no answer in time."
    );
    describe_gauge!(
        QUEUE_FULL,
        "1 while the queue is full and takes no events in."
    );
    describe_gauge!(PLUGINS, "Plugins by state.");
    let seconds = Unit::Seconds;
    describe_histogram!(
        ATTEMPT_DURATION,
        seconds,
        "How long attempts took, plugins included."
    );
    describe_histogram!(
        DELIVERY_DELAY,
        seconds,
        "How long after it was due an attempt began."
    );
}

/// Counts attempts in the process-wide recorder.
#[derive(Default)]
pub struct AttemptMetrics {
    /// Counters that were used before: finding one by its labels costs more than counting.
    known: ArcSwap<HashMap<(EventType, Outcome, StatusClass), Counter>>,
    // Found with the first attempt, when there is a recorder.
    times: OnceLock<Times>,
}

struct Times {
    duration: Histogram,
    delay: Histogram,
}

impl AttemptMetrics {
    /// An attempt began so long after it was due, and took so long.
    pub fn timed(&self, delay: Duration, duration: Duration) {
        let times = self.times.get_or_init(|| Times {
            duration: metrics::histogram!(ATTEMPT_DURATION),
            delay: metrics::histogram!(DELIVERY_DELAY),
        });
        times.duration.record(duration);
        times.delay.record(delay);
    }
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
