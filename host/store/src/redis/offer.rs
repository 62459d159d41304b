//! A worker's offer to take new work as soon as it is enqueued.
//!
//! A host that has nothing to do mostly delivers what it enqueues itself. While its worker waits, it leaves word
//! of what it would take; the next call that enqueues something takes that along, and what it made is leased by
//! the same step: one round trip from an event to its attempt instead of two.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::functions::Call;
use super::{CHUNK, micros};
use crate::queue::{LeaseRequest, LeaseToken, Leased};

/// What a worker that waits would take.
pub(super) struct Offer {
    request: LeaseRequest,
    light: usize,
    brought: oneshot::Sender<Vec<Leased>>,
}

impl Offer {
    /// How many deliveries are leased at most.
    pub(super) fn quota(&self) -> usize {
        self.request.max.min(CHUNK)
    }

    /// Adds it to a call that enqueues; `heard` is the last lease of its kind that this host knows of.
    pub(super) fn write(&self, call: &mut Call, heard: Option<&LeaseToken>) {
        call.arg(heard.map_or("", |token| &token.0));
        call.arg(self.light.max(1));
        call.arg(self.request.max_per_endpoint.max(1));
        call.arg(micros(self.request.duration).max(1000));
        call.arg(self.quota());
    }

    /// Hands over what was leased, or returns it when nobody waits for it any more. An offer that is dropped
    /// instead ends the waiting too.
    pub(super) fn bring(self, leased: Vec<Leased>) -> Result<(), Vec<Leased>> {
        self.brought.send(leased)
    }
}

/// The offer that stands, if one does.
#[derive(Default)]
pub(super) struct Offers(Mutex<Option<Offer>>);

impl Offers {
    fn standing<T>(&self, look: impl FnOnce(&mut Option<Offer>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes an offer, which stands until it is taken or no longer waited for.
    pub(super) fn make(&self, request: LeaseRequest, light: usize) -> Waiting<'_> {
        let (brought, answer) = oneshot::channel();
        let offer = Offer {
            request,
            light,
            brought,
        };
        self.standing(|standing| *standing = Some(offer));
        Waiting {
            offers: self,
            answer,
        }
    }

    /// Takes the offer that stands.
    pub(super) fn take(&self) -> Option<Offer> {
        self.standing(Option::take)
    }
}

/// Waits for what is brought. Who drops it withdraws the offer.
pub(super) struct Waiting<'a> {
    offers: &'a Offers,
    answer: oneshot::Receiver<Vec<Leased>>,
}

impl Waiting<'_> {
    /// What was leased; nothing if that failed.
    pub(super) async fn brought(&mut self) -> Vec<Leased> {
        (&mut self.answer).await.unwrap_or_default()
    }

    /// Ends the waiting for anything but what is being enqueued by a call that has taken the offer.
    pub(super) async fn end(mut self) -> Vec<Leased> {
        self.offers.standing(|standing| drop(standing.take()));
        self.brought().await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.answer.close();
        self.offers
            .standing(|standing| drop(standing.take_if(|offer| offer.brought.is_closed())));
    }
}
