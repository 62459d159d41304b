//! What goes on in the background: retention, the gauges of the queue, and its repair.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmhook_store::{CheckReport, CheckRequest, Retention, Store, StoreError};

use crate::backoff::Backoff;
use crate::metric;

/// How often retention is enforced and gauges are read.
const EVERY: Duration = Duration::from_secs(15);
/// When the store is first checked: after a start there is more urgent work.
const FIRST_CHECK: Duration = Duration::from_mins(3);
/// How often the store is checked, by one of the hosts that share it.
const CHECK_EVERY: Duration = Duration::from_hours(1);

/// Enforces retention, reports the backlog, and has the store checked and mended.
pub struct Housekeeping {
    store: Arc<dyn Store>,
    retention: Retention,
}

impl Housekeeping {
    /// For one store.
    pub fn new(store: Arc<dyn Store>, retention: Retention) -> Self {
        Self { store, retention }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // A check takes its time, and retention must not wait for it.
        tokio::join!(self.retain(&stop), self.repair(&stop));
    }

    async fn retain(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new("remove old deliveries");
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            match self.turn(stop).await {
                Ok(()) => backoff.succeeded(),
                Err(error) => tokio::select! {
                    () = backoff.failed(&error) => {}
                    () = stop.cancelled() => return,
                },
            }
        }
    }

    async fn repair(&self, stop: &CancellationToken) {
        let mut pause = FIRST_CHECK;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = CHECK_EVERY;
            // Given up half-way, a check leaves nothing half done.
            let checked = tokio::select! {
                checked = self.check() => checked,
                () = stop.cancelled() => return,
            };
            match checked {
                Ok(Some(report)) => tell(&report),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the queue could not be checked"),
            }
        }
    }

    /// `None` when another host has checked not long ago.
    async fn check(&self) -> Result<Option<CheckReport>, StoreError> {
        // Shorter than the pause between two checks, so that this host's own does not prevent its next.
        if !self.store.claim_check(CHECK_EVERY / 2).await? {
            return Ok(None);
        }
        let request = CheckRequest {
            repair: true,
            gentle: true,
        };
        self.store.check(request).await.map(Some)
    }

    async fn turn(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() && self.store.retain(&self.retention).await? > 0 {
            tokio::task::yield_now().await;
        }
        let backlog = self.store.backlog().await?;
        for (state, count) in [
            ("waiting", backlog.waiting),
            ("leased", backlog.leased),
            ("succeeded", backlog.succeeded),
            ("dead_letter", backlog.dead_letter),
        ] {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float, and counts stay far below 2^53"
            )]
            metrics::gauge!(metric::DELIVERIES, "state" => state).set(count as f64);
        }
        Ok(())
    }
}

/// Logs and counts what a check found.
fn tell(report: &CheckReport) {
    if report.is_sound() {
        tracing::debug!(deliveries = report.looked.deliveries, "the queue is sound");
        return;
    }
    let mut words = Vec::new();
    for (finding, found) in &report.findings {
        let left = found.count.saturating_sub(found.repaired);
        for (outcome, count) in [("repaired", found.repaired), ("left", left)] {
            metrics::counter!(metric::FINDINGS, "kind" => finding.as_str(), "outcome" => outcome)
                .increment(count);
        }
        let count = found.count;
        words.push(format!("{} {count} ({left} left)", finding.as_str()));
    }
    tracing::warn!(
        found = words.join(", "),
        "the queue was not as it should be, and was mended where that is possible; `wasmhook queue check` tells more"
    );
}
