//! The stream through which producers push events.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use wasmhook_core::EventDraft;

use crate::error::StoreError;

/// The stream's own id of an entry: entries are in the order of their ids. Written as `1526919030474-55`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// By the stream's clock.
    millis: u64,
    /// The place among those of one millisecond.
    sequence: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// What is no id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected two numbers with a dash between them")]
pub struct EntryIdError;

impl FromStr for EntryId {
    type Err = EntryIdError;

    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        let (millis, sequence) = text.split_once('-').ok_or(EntryIdError)?;
        let number = |text: &str| text.parse().map_err(|_| EntryIdError);
        Ok(Self {
            millis: number(millis)?,
            sequence: number(sequence)?,
        })
    }
}

/// One entry of the stream.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    /// To acknowledge it by.
    pub id: EntryId,
    /// The fields, not yet validated.
    pub draft: EventDraft,
}

/// A durable stream of pushed events, each handed to one host.
#[async_trait]
pub trait EventStream: Send + Sync + 'static {
    /// The next entries: first those that were read before and left behind, by a host that is gone or by an
    /// answer that got lost, then new ones, for which it waits up to `wait`. What is left behind may be read
    /// twice, by several hosts too: to take an event in again makes no second delivery. The stream and its group
    /// are made when they are missing, at any time.
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>, StoreError>;

    /// Those of these entries that are still there, in the order asked for: again what could not be dispatched
    /// when it was read.
    async fn reread(&self, ids: &[EntryId]) -> Result<Vec<StreamEntry>, StoreError>;

    /// Removes entries that were dispatched or kept as rejected.
    async fn acknowledge(&self, ids: &[EntryId]) -> Result<(), StoreError>;

    /// Appends events; returns once the store has them.
    async fn push(&self, events: &[EventDraft]) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_numbers_and_written_as_they_are_read() {
        let id = |text: &str| EntryId::from_str(text).unwrap();
        assert!(id("9-1") < id("10-0") && id("10-9") < id("10-10"));
        for text in ["0-0", "1526919030474-55", "18446744073709551615-0"] {
            assert_eq!(id(text).to_string(), text);
        }
        for text in [
            "",
            "1",
            "1-",
            "-1",
            "a-1",
            "1-2-3",
            "18446744073709551616-0",
        ] {
            assert_eq!(EntryId::from_str(text), Err(EntryIdError), "{text}");
        }
    }
}
