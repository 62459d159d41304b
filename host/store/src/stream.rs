//! The stream through which producers push events.

use std::time::Duration;

use async_trait::async_trait;
use wasmhook_core::EventDraft;

use crate::error::StoreError;

/// One entry of the stream.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    /// The stream's own id of the entry, to acknowledge it by.
    pub id: String,
    /// The fields, not yet validated.
    pub draft: EventDraft,
}

/// A durable stream of pushed events, each handed to one host.
#[async_trait]
pub trait EventStream: Send + Sync + 'static {
    /// The next entries: first those that a dead host left unacknowledged, then new ones, for which
    /// it waits up to `wait`. The stream and its group are made when they are missing, at any time.
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>, StoreError>;

    /// What was read by this host and is not acknowledged, oldest first, after an entry of it or from the
    /// beginning: again what could not be dispatched when it was read. Empty at the end.
    async fn unacknowledged(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<StreamEntry>, StoreError>;

    /// Acknowledges and removes entries that were dispatched or kept as rejected.
    async fn acknowledge(&self, ids: &[String]) -> Result<(), StoreError>;

    /// Appends events; returns once the store has them.
    async fn push(&self, events: &[EventDraft]) -> Result<(), StoreError>;
}
