//! Writes what ended, many at a time.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use wasmhook_store::{Leased, Outcome, Recorded, Store, StoreError};

use crate::backoff::Backoff;
use crate::metric;

/// Outcomes written in one call.
const BATCH: usize = 128;

/// How a lease ended.
pub(crate) enum Ending {
    /// With an attempt.
    Attempted(Box<Outcome>),
    /// Given back unused.
    Released(Box<Leased>),
}

/// One lease that ended. Its place among the deliveries in flight is kept until it is written.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Writes until the last sender is gone. While one batch is under way the next one gathers, so that
/// batches grow with the load.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    mut ended: mpsc::Receiver<Ended>,
    written: Arc<Notify>,
) {
    let mut gathered = Vec::with_capacity(BATCH);
    let mut backoff = Backoff::new("record attempts");
    while ended.recv_many(&mut gathered, BATCH).await > 0 {
        let (mut outcomes, mut releases) = (Vec::new(), Vec::new());
        let mut permits = Vec::with_capacity(gathered.len());
        for Ended { ending, permit } in gathered.drain(..) {
            permits.push(permit);
            match ending {
                Ending::Attempted(outcome) => outcomes.push(*outcome),
                Ending::Released(leased) => releases.push(*leased),
            }
        }
        // Repeating is safe: what was written before the answer was lost has given up its lease.
        while let Err(error) = write(&*store, &outcomes, &releases).await {
            let passes = matches!(
                error,
                StoreError::Unavailable { .. } | StoreError::NotReplicated { .. }
            );
            if ended.is_closed() && passes {
                tracing::error!(%error, "stopping without recording; the leases will expire and the attempts be repeated");
                return;
            }
            backoff.failed(&error).await;
        }
        backoff.succeeded();
        drop(permits);
        written.notify_one();
    }
}

async fn write(
    store: &dyn Store,
    outcomes: &[Outcome],
    releases: &[Leased],
) -> Result<(), StoreError> {
    if !releases.is_empty() {
        store.release(releases).await?;
    }
    if outcomes.is_empty() {
        return Ok(());
    }
    let recorded = store.record(outcomes).await?;
    for (outcome, recorded) in outcomes.iter().zip(recorded) {
        if recorded == Recorded::LeaseLost {
            metrics::counter!(metric::LEASES_LOST).increment(1);
            tracing::warn!(
                tenant = %outcome.delivery.tenant_id, delivery = %outcome.delivery.id,
                "the lease was lost before the attempt was recorded; nothing was written"
            );
        }
    }
    Ok(())
}
