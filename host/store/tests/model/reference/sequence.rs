//! Whose turn it is in a sequence.

use std::collections::{BTreeMap, BTreeSet};

use wasmhook_core::{DeliveryId, DeliveryState, EndpointId, TenantId};

use super::{Key, Known, Place, Reference, due_at};
use crate::window::Window;

impl Reference {
    /// Of each sequence in which it is nobody's turn, the delivery that was made first is due, or waits
    /// for its time.
    pub(super) fn advance(&mut self, call: Window) {
        let mut taken = BTreeSet::new();
        let mut next: BTreeMap<_, ((u64, usize), Key)> = BTreeMap::new();
        for (key, known) in &self.deliveries {
            let Some(sequence) = sequence(key, known) else {
                continue;
            };
            match &known.place {
                Place::Finished { .. } => {}
                Place::Behind => {
                    let this = (known.born, key.clone());
                    let first = next.entry(sequence).or_insert_with(|| this.clone());
                    if this.0 < first.0 {
                        *first = this;
                    }
                }
                _ => {
                    taken.insert(sequence);
                }
            }
        }
        for (sequence, (_, key)) in next {
            if let (false, Some(known)) = (taken.contains(&sequence), self.deliveries.get_mut(&key))
            {
                let at = known.scheduled.filter(|_| known.attempts.is_empty());
                known.place = Place::Waiting {
                    state: DeliveryState::Pending,
                    due: at.map_or(call, |at| due_at(call, at)),
                };
            }
        }
    }

    /// Whose turn it is where this delivery waits for its own.
    pub(crate) fn turn_before(&self, key: &Key) -> Option<DeliveryId> {
        let known = self.deliveries.get(key)?;
        let of = matches!(known.place, Place::Behind).then(|| sequence(key, known))?;
        self.deliveries
            .iter()
            .find(|(other, known)| {
                sequence(other, known) == of
                    && !matches!(known.place, Place::Behind | Place::Finished { .. })
            })
            .map(|(key, _)| key.1.clone())
    }
}

/// What deliveries must have in common to be in one sequence.
fn sequence(key: &Key, known: &Known) -> Option<(TenantId, EndpointId, String)> {
    let name = known.sequence.as_ref()?.name();
    Some((key.0.clone(), known.endpoint.clone(), name.to_owned()))
}
