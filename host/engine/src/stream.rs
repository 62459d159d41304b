//! Reads pushed events from a stream into intake.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmhook_store::{EventStream, StreamEntry};

use crate::backoff::Backoff;
use crate::intake::{Intake, Source};
use crate::pressure::Pressure;

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
    pressure: Pressure,
}

impl StreamReader {
    /// Reads from `stream` while the queue is not full; what is pushed meanwhile waits there.
    pub fn new(stream: Arc<dyn EventStream>, intake: Arc<Intake>, pressure: Pressure) -> Self {
        Self {
            stream,
            intake,
            pressure,
        }
    }

    /// Runs until `stop`. An entry is acknowledged once its event is dispatched or kept as
    /// rejected; a crash before that makes it be read again, which makes no second delivery.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new("read the event stream");
        // Entries that are taken in. They are acknowledged while the next ones are read.
        let mut taken: Vec<String> = Vec::new();
        while !stop.is_cancelled() {
            let turn = async {
                self.pressure.relieved().await;
                tokio::join!(
                    self.stream.acknowledge(&taken),
                    self.stream.read(BATCH, WAIT)
                )
            };
            let (acknowledged, read) = tokio::select! {
                both = turn => both,
                () = stop.cancelled() => break,
            };
            if acknowledged.is_ok() {
                taken.clear();
            }
            let failed = match read {
                Ok(entries) => {
                    if !entries.is_empty() && self.take(&entries, &stop).await {
                        taken.extend(entries.into_iter().map(|entry| entry.id));
                    }
                    acknowledged.err()
                }
                Err(error) => Some(error),
            };
            match failed {
                None => backoff.succeeded(),
                Some(error) => tokio::select! {
                    () = backoff.failed(&error) => {}
                    () = stop.cancelled() => break,
                },
            }
        }
        if let Err(error) = self.stream.acknowledge(&taken).await {
            tracing::warn!(%error, "events that were taken in are not acknowledged; they will be read again, and found to be known");
        }
    }

    /// Whether the entries were taken in. They stay with this consumer until they are acknowledged, so
    /// a failed batch is tried again here rather than waiting to be claimed.
    async fn take(&self, entries: &[StreamEntry], stop: &CancellationToken) -> bool {
        let mut backoff = Backoff::new("take in events of the stream");
        for _ in 0..TRIES {
            let drafts = entries
                .iter()
                .map(|entry| Ok(entry.draft.clone()))
                .collect();
            match self.intake.accept(Source::Stream, drafts).await {
                Ok(_) => {
                    backoff.succeeded();
                    return true;
                }
                Err(error) => tokio::select! {
                    () = backoff.failed(&error) => {}
                    () = stop.cancelled() => return false,
                },
            }
        }
        // Left unacknowledged: the stream hands the entries out again once they have been idle.
        false
    }
}
