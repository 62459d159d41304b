//! Compiled code in use, so that tenants with the same bytes share it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::code_id::{CodeId, Owner};
use crate::plugin::Code;
use crate::types::Digest;

/// Fewer entries than this are not worth looking through.
const FEW: usize = 64;

/// Finds code by the digest of the component that it was made from, as long as someone uses it.
#[derive(Default)]
pub(crate) struct Codes(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// For each component the code for everyone, and that of plugins which have their own.
    by_digest: HashMap<Digest, Vec<Weak<Code>>>,
    /// How many entries there were, and in use, when they were looked through last.
    kept: usize,
}

impl Codes {
    /// The code of a component, if there is any that may serve this owner.
    pub(crate) fn find(&self, digest: Digest, owner: Option<Owner>) -> Option<Arc<Code>> {
        let entries = self.entries();
        let mut codes = entries.by_digest.get(&digest)?.iter();
        codes.find_map(|code| {
            let code = code.upgrade()?;
            CodeId::all(digest, owner)
                .any(|id| id == code.id)
                .then_some(code)
        })
    }

    /// Whether someone uses code of this component, whoever it may serve.
    pub(crate) fn is_used(&self, digest: Digest) -> bool {
        let entries = self.entries();
        let codes = entries.by_digest.get(&digest);
        codes.is_some_and(|codes| codes.iter().any(|code| code.strong_count() > 0))
    }

    /// Let others have this code too, if it may serve them.
    pub(crate) fn share(&self, code: &Arc<Code>) {
        let mut entries = self.entries();
        // Once for each doubling: at every change a host would look at all plugins for each plugin.
        if entries.by_digest.len() >= 2 * entries.kept.max(FEW) {
            entries.by_digest.retain(|_, codes| {
                codes.retain(|code| code.strong_count() > 0);
                !codes.is_empty()
            });
            entries.kept = entries.by_digest.len();
        }
        let codes = entries.by_digest.entry(code.id.digest).or_default();
        codes.retain(|code| code.strong_count() > 0);
        codes.push(Arc::downgrade(code));
    }

    /// What is in use.
    pub(crate) fn in_use(&self) -> HashSet<CodeId> {
        let entries = self.entries();
        let codes = entries.by_digest.values().flatten();
        codes.filter_map(|code| Some(code.upgrade()?.id)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
