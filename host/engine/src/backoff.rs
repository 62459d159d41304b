//! Waiting while a store is away, and saying so once.

use std::time::Duration;

use wasmhook_store::StoreError;

use crate::metric;

/// The first wait after a failure.
const FIRST: Duration = Duration::from_millis(100);
/// No wait is longer: leases go on ending while what came of them waits to be recorded.
const LONGEST: Duration = Duration::from_secs(1);

/// Exponential waits over consecutive failures, with one log line when they begin and one when
/// they end.
#[derive(Debug)]
pub struct Backoff {
    what: &'static str,
    failures: u32,
}

impl Backoff {
    /// For a loop that does `what`, such as `lease deliveries`.
    pub fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    /// The store answered.
    pub fn succeeded(&mut self) {
        if self.failures > 0 {
            tracing::info!(
                task = self.what,
                failures = self.failures,
                "the store is back"
            );
            self.failures = 0;
        }
    }

    /// The store failed: logs the first time, then waits.
    pub async fn failed(&mut self, error: &StoreError) {
        tokio::time::sleep(self.wait_after(error)).await;
    }

    /// The store failed: counts it, logs the first time, and says how long to wait.
    pub fn wait_after(&mut self, error: &StoreError) -> Duration {
        if self.failures == 0 {
            tracing::error!(task = self.what, %error, "the store failed; trying again until it is back");
        } else {
            tracing::debug!(task = self.what, %error, "the store still fails");
        }
        metrics::counter!(metric::STORE_FAILURES, "task" => self.what).increment(1);
        let wait = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}
