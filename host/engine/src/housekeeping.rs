//! What goes on in the background: retention, and the gauges of the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmhook_store::{Retention, Store};

use crate::backoff::Backoff;
use crate::metric;

/// How often retention is enforced and gauges are read.
const EVERY: Duration = Duration::from_secs(15);

/// Enforces retention and reports the backlog.
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
        let mut backoff = Backoff::new("remove old deliveries");
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            match self.turn(&stop).await {
                Ok(()) => backoff.succeeded(),
                Err(error) => tokio::select! {
                    () = backoff.failed(&error) => {}
                    () = stop.cancelled() => return,
                },
            }
        }
    }

    async fn turn(&self, stop: &CancellationToken) -> Result<(), wasmhook_store::StoreError> {
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
