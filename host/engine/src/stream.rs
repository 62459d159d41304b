//! Reads pushed events from a stream into intake.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmhook_store::{EventStream, StoreError, StreamEntry};

use crate::backoff::Backoff;
use crate::intake::{Intake, Source};

/// Entries read at once.
const BATCH: usize = 128;
/// How long one read waits for an entry before it looks again for entries of dead hosts.
const WAIT: Duration = Duration::from_secs(5);
/// Tries to take a batch in before it is left to be read again.
const TRIES: usize = 100;

/// Moves events from a stream into intake until it is told to stop.
pub struct StreamReader {
    stream: Arc<dyn EventStream>,
    intake: Arc<Intake>,
}

impl StreamReader {
    /// Reads from `stream`.
    pub fn new(stream: Arc<dyn EventStream>, intake: Arc<Intake>) -> Self {
        Self { stream, intake }
    }

    /// Runs until `stop`. An entry is acknowledged once its event is dispatched or kept as
    /// rejected; a crash before that makes it be read again, which makes no second delivery.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new("read the event stream");
        while !stop.is_cancelled() {
            let read = tokio::select! {
                read = self.stream.read(BATCH, WAIT) => read,
                () = stop.cancelled() => return,
            };
            let moved = match read {
                Ok(entries) if entries.is_empty() => Ok(()),
                Ok(entries) => self.take(entries).await,
                Err(error) => Err(error),
            };
            match moved {
                Ok(()) => backoff.succeeded(),
                Err(error) => tokio::select! {
                    () = backoff.failed(&error) => {}
                    () = stop.cancelled() => return,
                },
            }
        }
    }

    async fn take(&self, entries: Vec<StreamEntry>) -> Result<(), StoreError> {
        // The entries stay with this consumer until they are acknowledged, so a failed batch is
        // tried again here rather than waiting to be claimed.
        let mut backoff = Backoff::new("take in events of the stream");
        for _ in 0..TRIES {
            let drafts = entries
                .iter()
                .map(|entry| Ok(entry.draft.clone()))
                .collect();
            match self.intake.accept(Source::Stream, drafts).await {
                Ok(_) => {
                    backoff.succeeded();
                    let ids: Vec<_> = entries.into_iter().map(|entry| entry.id).collect();
                    return self.stream.acknowledge(&ids).await;
                }
                Err(error) => backoff.failed(&error).await,
            }
        }
        // Left unacknowledged: the stream hands the entries out again once they have been idle.
        Ok(())
    }
}
