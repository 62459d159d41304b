//! When events are written beside the calls that enqueue them, instead of within.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Payloads of so many bytes in all: what the transaction costs beyond the call is what passing some 2 KiB through Lua
/// does (measured).
const LEAST: usize = 4096;
/// So many calls for a shard are made without that after one that was of no use: an event was there already, as when
/// a producer repeats itself, or there is the token of another such call.
const WITHOUT: usize = 50;

/// Whether it is worth its while for payloads of so many bytes.
pub(super) fn pays(bytes: usize) -> bool {
    bytes >= LEAST
}

/// The calls for one shard.
#[derive(Default)]
pub(super) struct Beside {
    /// How many are to be made without.
    without: AtomicUsize,
    /// How many tokens there were.
    tokens: AtomicUsize,
}

impl Beside {
    /// The token of a store's next call, `me` being the store; none if it is not to be made that way.
    pub(super) fn token(&self, me: &str) -> Option<String> {
        let less = |left: usize| left.checked_sub(1);
        let waited = self
            .without
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if waited.is_ok() {
            return None;
        }
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        Some(format!("{me}.{number:x}"))
    }

    /// One was of no use.
    pub(super) fn was_useless(&self) {
        self.without.store(WITHOUT, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_one_that_was_of_no_use_some_calls_are_made_without() {
        let beside = Beside::default();
        let first = beside.token("me");
        assert!(first.is_some() && first != beside.token("me"));
        beside.was_useless();
        let without = std::iter::from_fn(|| beside.token("me").is_none().then_some(()));
        assert_eq!(without.count(), WITHOUT);
        assert!(beside.token("me").is_some());
    }
}
