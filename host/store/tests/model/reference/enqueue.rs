//! Enqueueing.

use jiff::Timestamp;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{Delivery, DeliveryState};
use wasmhook_store::EventDeliveries;

use super::{Known, Place, Reference, Story, Verdict, due_at, key, promise};
use crate::window::Window;

impl Reference {
    /// Events were pushed: unknown ones are new, known ones change nothing, and extended ones get
    /// the deliveries that they do not have yet.
    pub(crate) fn enqueue(
        &mut self,
        call: Window,
        batch: &[EventDeliveries],
        answers: &[Enqueued],
    ) -> Verdict {
        self.calls += 1;
        promise!(
            answers.len() == batch.len(),
            "an enqueue of {} events has {} answers",
            batch.len(),
            answers.len()
        );
        let mut place = 0;
        for (item, answer) in batch.iter().zip(answers) {
            let new: Vec<_> = item
                .deliveries
                .iter()
                .filter(|delivery| !self.deliveries.contains_key(&key(delivery)))
                .collect();
            let id = (item.event.tenant_id.clone(), item.event.id.clone());
            let story = self.events.get_mut(&id);
            let duplicate = match &story {
                None => false,
                Some(story) if story.bare => !item.extends && answer.duplicate,
                Some(_) => !item.extends,
            };
            let created = if duplicate { 0 } else { new.len() };
            promise!(
                *answer == Enqueued { created, duplicate },
                "event {id:?} was answered {answer:?}, not {created} created and duplicate {duplicate}"
            );
            if duplicate {
                continue;
            }
            match story {
                Some(story) if story.bare => {
                    story.versions.push(item.event.clone());
                    story.bare = new.is_empty();
                }
                Some(_) => {}
                None => {
                    let story = Story {
                        versions: vec![item.event.clone()],
                        bare: new.is_empty(),
                    };
                    self.events.insert(id, story);
                }
            }
            for delivery in new {
                place += 1;
                let known = Known {
                    event: delivery.event_id.clone(),
                    endpoint: delivery.endpoint_id.clone(),
                    born: (self.calls, place),
                    attempts: Vec::new(),
                    replayed_at_attempt: 0,
                    next_at: scheduled(call, delivery),
                    scheduled: delivery.is_scheduled().then_some(delivery.next_at),
                    sequence: delivery.sequence.clone(),
                    place: if delivery.sequence.is_some() {
                        Place::Behind
                    } else {
                        Place::Waiting {
                            state: DeliveryState::Pending,
                            due: first_due(call, delivery),
                        }
                    },
                };
                self.deliveries.insert(key(delivery), known);
            }
        }
        self.advance(call);
        Ok(())
    }
}

/// When a new delivery is due: at once, or at its time by the store's clock.
fn first_due(call: Window, delivery: &Delivery) -> Window {
    if delivery.is_scheduled() {
        due_at(call, delivery.next_at)
    } else {
        call
    }
}

/// The time that a new delivery is shown to wait for, if it surely waits.
fn scheduled(call: Window, delivery: &Delivery) -> Option<Timestamp> {
    let waits = delivery.is_scheduled() && call.surely_before(Window::at(delivery.next_at));
    waits.then_some(delivery.next_at)
}
