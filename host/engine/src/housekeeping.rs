//! What goes on in the background: retention, the gauges of the queue, and its repair.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmhook_store::{Backlog, CheckReport, CheckRequest, Retention, Store, StoreError};

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
        // Checks and retention take their time, and nothing else must wait for them.
        tokio::join!(self.retain(&stop), self.report(&stop), self.repair(&stop));
    }

    async fn retain(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new("remove old deliveries");
        while !paused(EVERY, stop).await {
            match self.remove(stop).await {
                Ok(()) => backoff.succeeded(),
                Err(error) => {
                    let _ = paused(backoff.wait_after(&error), stop).await;
                }
            }
        }
    }

    /// Removes all that is past its retention.
    async fn remove(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let began = Instant::now();
        loop {
            let asked = Instant::now();
            if self.store.retain(&self.retention).await? == 0 {
                return Ok(());
            }
            // Deliveries do not wait for all of it: they have the store to themselves for as long as this had. Who is
            // late goes on without rests, or what is kept would grow.
            let late = began.elapsed() >= EVERY;
            let rest = if late {
                Duration::ZERO
            } else {
                asked.elapsed()
            };
            if paused(rest, stop).await {
                return Ok(());
            }
        }
    }

    /// Tells how much there is of everything.
    async fn report(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new("count deliveries");
        while !paused(EVERY, stop).await {
            match self.store.backlog().await {
                Ok(backlog) => {
                    backoff.succeeded();
                    show(&backlog);
                }
                Err(error) => {
                    let _ = paused(backoff.wait_after(&error), stop).await;
                }
            }
        }
    }

    async fn repair(&self, stop: &CancellationToken) {
        let mut pause = FIRST_CHECK;
        while !paused(pause, stop).await {
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
}

/// Waits, and says whether it is to stop.
async fn paused(pause: Duration, stop: &CancellationToken) -> bool {
    stop.run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_none()
}

fn show(backlog: &Backlog) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and counts stay far below 2^53"
    )]
    let float = |count: u64| count as f64;
    for (state, count) in [
        ("waiting", backlog.waiting),
        ("leased", backlog.leased),
        ("succeeded", backlog.succeeded),
        ("dead_letter", backlog.dead_letter),
    ] {
        metrics::gauge!(metric::DELIVERIES, "state" => state).set(float(count));
    }
    metrics::gauge!(metric::STALLING).set(float(backlog.stalling_endpoints));
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
