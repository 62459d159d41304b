//! What becomes of leases: outcomes that are recorded, and leases that are given back.

use wasmhook_core::{Delivery, DeliveryState, ErrorClass, Sequence};
use wasmhook_store::{Leased, Outcome, Recorded};

use super::{Place, Reference, Verdict, key, promise};
use crate::window::Window;

impl Reference {
    /// Outcomes were recorded: by who holds the lease in force, once. `together` says that each
    /// came in a call of its own, at the same time as the others.
    pub(crate) fn record(
        &mut self,
        call: Window,
        outcomes: &[(Outcome, Recorded)],
        together: bool,
    ) -> Verdict {
        self.calls += 1;
        let mut contested = Vec::new();
        for (outcome, answer) in outcomes {
            let key = key(&outcome.leased.delivery);
            let token = &outcome.leased.token;
            let known = self
                .deliveries
                .get_mut(&key)
                .filter(|known| known.is_held_with(token));
            match (known, answer) {
                (None, Recorded::LeaseLost) => {}
                (None, Recorded::Written) => {
                    return Err(format!("{key:?} was recorded under a lease that is lost"));
                }
                (Some(known), Recorded::LeaseLost) => {
                    if together {
                        contested.push((key, token.clone()));
                    } else {
                        promise!(
                            known.may_have_ended(call),
                            "{key:?} was not recorded, though its lease is in force"
                        );
                    }
                }
                (Some(known), Recorded::Written) => {
                    if outcome.attempt.error_class == Some(ErrorClass::Timeout) {
                        let lane = (key.0.clone(), known.endpoint.clone());
                        *self.stalled.entry(lane).or_default() += 1;
                    }
                    known.attempts.push(outcome.attempt.clone());
                    known.place = concluded(call, self.calls, &outcome.delivery);
                    if outcome.delivery.state == DeliveryState::DeadLetter
                        && known.sequence.as_ref().is_some_and(Sequence::blocks)
                    {
                        known.place = Place::Blocking;
                    }
                    known.next_at = matches!(known.place, Place::Waiting { .. })
                        .then_some(outcome.delivery.next_at);
                }
            }
        }
        for (key, token) in contested {
            let known = self
                .deliveries
                .get(&key)
                .filter(|known| known.is_held_with(&token));
            promise!(
                known.is_none_or(|known| known.may_have_ended(call)),
                "{key:?} was recorded by none of those who hold its lease"
            );
        }
        self.advance(call);
        Ok(())
    }

    /// Leases were given back: those in force are due at once, the others are nobody's business.
    pub(crate) fn release(&mut self, call: Window, leases: &[Leased]) {
        self.calls += 1;
        for leased in leases {
            let known = self.deliveries.get_mut(&key(&leased.delivery));
            let Some(known) = known.filter(|known| known.is_held_with(&leased.token)) else {
                continue;
            };
            let ended = known.may_have_ended(call);
            if let Place::Leased { back, ends, .. } = &mut known.place {
                if ended {
                    // It may have come too late, and then the lease is put back by the next call.
                    ends.to = ends.to.min(call.to);
                } else {
                    known.place = Place::Waiting {
                        state: *back,
                        due: call,
                    };
                }
            }
        }
    }
}

/// Where a delivery is after an outcome was written.
fn concluded(call: Window, number: u64, delivery: &Delivery) -> Place {
    match delivery.state {
        DeliveryState::Failed => {
            let due = Window::at(delivery.next_at);
            Place::Waiting {
                state: DeliveryState::Failed,
                // A store may count the wait from when it writes, and does not look back.
                due: Window {
                    from: due.from,
                    to: due.plus(call.length()).to.max(call.to),
                },
            }
        }
        state => Place::Finished {
            state,
            at: call,
            call: number,
        },
    }
}
