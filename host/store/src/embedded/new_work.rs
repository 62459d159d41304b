//! Leasing what tenants have who had nothing before.

use std::time::Duration;

use async_trait::async_trait;

use super::{EmbeddedStore, lease};
use crate::queue::{LeaseRequest, Leased, NewWork, Store as _};

#[async_trait]
impl NewWork for EmbeddedStore {
    // What is enqueued is leased by the thread that leases, not by the one that writes: nothing is brought.
    async fn wait(&self, _request: &LeaseRequest, _light: usize, timeout: Duration) -> Vec<Leased> {
        if !self.schedule.lock().has_new_work() {
            let _ = tokio::time::timeout(timeout, self.news.notified()).await;
        }
        Vec::new()
    }

    fn interrupt(&self) {
        self.news.notify_one();
    }

    async fn lease(&self, request: &LeaseRequest, light: usize) -> Vec<Leased> {
        let request = request.clone();
        let leased = self
            .leaser
            .call("lease new work", move |leaser| {
                lease::lease(leaser, &request, Some(light))
            })
            .await;
        match leased {
            Ok(batch) => batch.leased,
            Err(error) => {
                // What cannot be read shows where all is leased, and is tried again there.
                tracing::warn!(%error, "new work could not be leased");
                Vec::new()
            }
        }
    }

    async fn wait_for_rest(&self, timeout: Duration) {
        // The store's own trouble shows, and is logged, at the next lease.
        if self.wait_for_work(timeout).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100).min(timeout)).await;
        }
    }
}
