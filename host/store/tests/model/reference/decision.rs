//! What people decide: replays, and dead letters that a sequence is to go on without.

use wasmhook_core::DeliveryState;
use wasmhook_store::StoreError;

use super::{Key, Place, Reference, Verdict, promise};
use crate::window::Window;

impl Reference {
    /// Support asked for a replay: of a finished delivery of that tenant, and of nothing else.
    pub(crate) fn replay(
        &mut self,
        call: Window,
        key: &Key,
        answer: &Result<(), StoreError>,
    ) -> Verdict {
        self.calls += 1;
        let Some(known) = self.deliveries.get_mut(key) else {
            promise!(
                matches!(answer, Err(StoreError::NotFound)),
                "the replay of {key:?}, which this tenant has not, was answered {answer:?}"
            );
            return Ok(());
        };
        // Where it goes; or what it may be said to be, if it is not finished.
        let goes = match &known.place {
            Place::Finished { .. } if known.sequence.is_some() => Ok(Place::Behind),
            Place::Finished { .. } | Place::Blocking => Ok(Place::Waiting {
                state: DeliveryState::Pending,
                due: call,
            }),
            Place::Waiting { state, .. } => Err(vec![*state]),
            Place::Behind => Err(vec![DeliveryState::Pending]),
            Place::Leased { back, .. } if known.may_have_ended(call) => {
                Err(vec![DeliveryState::Leased, *back])
            }
            Place::Leased { .. } => Err(vec![DeliveryState::Leased]),
        };
        match goes {
            Ok(place) => {
                promise!(answer.is_ok(), "{key:?} was not replayed: {answer:?}");
                known.replayed_at_attempt = known.attempt();
                known.next_at = None;
                known.place = place;
                self.advance(call);
            }
            Err(allowed) => promise!(
                matches!(answer, Err(StoreError::NotFinished(state)) if allowed.contains(state)),
                "the replay of {key:?}, which is {allowed:?}, was answered {answer:?}"
            ),
        }
        Ok(())
    }

    /// Support skipped a delivery: a dead letter of that tenant that blocks, and nothing else.
    pub(crate) fn skip(
        &mut self,
        call: Window,
        key: &Key,
        answer: &Result<(), StoreError>,
    ) -> Verdict {
        self.calls += 1;
        let Some(known) = self.deliveries.get_mut(key) else {
            promise!(
                matches!(answer, Err(StoreError::NotFound)),
                "skipping {key:?}, which this tenant has not, was answered {answer:?}"
            );
            return Ok(());
        };
        if matches!(known.place, Place::Blocking) {
            promise!(answer.is_ok(), "{key:?} was not skipped: {answer:?}");
            known.place = Place::Finished {
                state: DeliveryState::DeadLetter,
                at: call,
                call: self.calls,
            };
            self.advance(call);
            return Ok(());
        }
        promise!(
            matches!(answer, Err(StoreError::NotBlocking(_))),
            "skipping {key:?}, which blocks nothing, was answered {answer:?}"
        );
        Ok(())
    }

    /// The dead letters that block.
    pub(crate) fn blocking(&self) -> Vec<Key> {
        self.deliveries
            .iter()
            .filter(|(_, known)| matches!(known.place, Place::Blocking))
            .map(|(key, _)| key.clone())
            .collect()
    }
}
