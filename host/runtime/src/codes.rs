//! Compiled code in use, so that tenants with the same bytes share it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::plugin::Code;
use crate::types::Digest;

/// Fewer entries than this are not worth looking through.
const FEW: usize = 64;

/// Finds code by the digest of the component that it was made from, as long as someone uses it.
#[derive(Default)]
pub(crate) struct Codes(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_digest: HashMap<Digest, Weak<Code>>,
    /// How many entries there were, and in use, when they were looked through last.
    kept: usize,
}

impl Codes {
    pub(crate) fn find(&self, digest: Digest) -> Option<Arc<Code>> {
        self.entries().by_digest.get(&digest)?.upgrade()
    }

    /// Let others have this code too.
    pub(crate) fn share(&self, code: &Arc<Code>) {
        let mut entries = self.entries();
        // Once for each doubling: at every change a host would look at all plugins for each plugin.
        if entries.by_digest.len() >= 2 * entries.kept.max(FEW) {
            entries.by_digest.retain(|_, code| code.strong_count() > 0);
            entries.kept = entries.by_digest.len();
        }
        entries.by_digest.insert(code.digest, Arc::downgrade(code));
    }

    /// The digests of what is in use.
    pub(crate) fn in_use(&self) -> HashSet<Digest> {
        let entries = self.entries();
        let in_use = entries
            .by_digest
            .iter()
            .filter(|(_, code)| code.strong_count() > 0);
        in_use.map(|(digest, _)| *digest).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
