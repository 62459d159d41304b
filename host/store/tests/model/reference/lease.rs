//! Leasing: nothing twice, nothing too early, nothing above a limit, and nothing left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wasmhook_core::{EndpointId, TenantId};
use wasmhook_store::{Batch, LeaseRequest, Leased};

use super::{Key, Known, Place, Reference, Verdict, check_facts, key, promise};
use crate::window::Window;

impl Reference {
    /// Workers leased, several of them at the same time: nothing twice, nothing before it is due,
    /// nothing above the endpoint's limit, and nothing left behind by who got less than asked for.
    pub(crate) fn lease(
        &mut self,
        call: Window,
        request: &LeaseRequest,
        batches: &[Batch],
    ) -> Verdict {
        self.calls += 1;
        self.lowest_cap = self
            .lowest_cap
            .min(Some(request.max_per_endpoint))
            .or(Some(request.max_per_endpoint));
        for batch in batches {
            promise!(
                batch.leased.len() <= request.max,
                "{} were leased of at most {}",
                batch.leased.len(),
                request.max
            );
        }
        let mut taken = BTreeSet::new();
        for leased in batches.iter().flat_map(|batch| &batch.leased) {
            let key = key(&leased.delivery);
            promise!(
                taken.insert(key.clone()),
                "{key:?} was leased twice at once"
            );
            self.check_leased(call, &key, leased)?;
            if let Some(known) = self.deliveries.get_mut(&key) {
                known.place = Place::Leased {
                    back: leased.delivery.state,
                    token: leased.token.clone(),
                    ends: call.plus(request.duration),
                };
            }
        }
        for (lane, count) in self.in_flight(|known| !known.may_have_ended(call)) {
            let added = taken.iter().any(|key| self.lane(key) == Some(lane.clone()));
            promise!(
                !added || count <= request.max_per_endpoint,
                "{count} are in flight for {lane:?}, at most {} may be",
                request.max_per_endpoint
            );
        }
        for (tenant, cap) in &self.caps {
            let count = self.in_flight_of(tenant, |known| !known.may_have_ended(call));
            let added = taken.iter().any(|key| key.0 == *tenant);
            promise!(
                !added || count <= *cap,
                "{count} are in flight for {tenant}, at most {cap} may be"
            );
        }
        if batches.iter().any(|batch| batch.leased.len() < request.max) {
            self.nothing_is_left_behind(call)?;
            self.put_back_what_ended(call);
        }
        match batches {
            [batch] if batch.leased.len() < request.max => self.next_due(call, batch),
            _ => Ok(()),
        }
    }

    fn check_leased(&self, call: Window, key: &Key, leased: &Leased) -> Verdict {
        let delivery = &leased.delivery;
        let known = self.deliveries.get(key);
        let Some(known) = known else {
            return Err(format!("{key:?} was leased and is not known"));
        };
        let state = match &known.place {
            Place::Waiting { state, due } => {
                promise!(
                    due.maybe_before(call),
                    "{key:?} was leased before it is due"
                );
                state
            }
            Place::Leased { back, .. } => {
                promise!(
                    known.may_have_ended(call),
                    "{key:?} was leased while it is leased"
                );
                back
            }
            Place::Behind => return Err(format!("{key:?} was leased before its turn")),
            Place::Blocking => return Err(format!("{key:?} was leased while it blocks")),
            Place::Finished { state, .. } => {
                return Err(format!("{key:?} was leased while it is {state}"));
            }
        };
        promise!(
            delivery.state == *state,
            "{key:?} was leased as {}, not {state}",
            delivery.state
        );
        check_facts(key, known, delivery, &leased.attempts)?;
        let story = self.events.get(&(key.0.clone(), known.event.clone()));
        promise!(
            story.is_some_and(|story| story.versions.contains(&leased.event)),
            "{key:?} was leased with another event than was pushed"
        );
        Ok(())
    }

    fn nothing_is_left_behind(&self, call: Window) -> Verdict {
        let in_flight = self.in_flight(|known| !known.surely_ended(call));
        for (key, known) in &self.deliveries {
            if known.surely_available(call) {
                let lane = (key.0.clone(), known.endpoint.clone());
                let count = in_flight.get(&lane).copied().unwrap_or(0);
                promise!(
                    self.may_be_full(&lane, count) || self.is_full(&key.0, call),
                    "{key:?} is due and was not leased, though only {count} are in flight"
                );
            }
        }
        Ok(())
    }

    fn next_due(&self, call: Window, batch: &Batch) -> Verdict {
        let mut anything = false;
        // As `Batch::next_due` allows while there is work.
        let late = if batch.leased.is_empty() {
            Duration::ZERO
        } else {
            Duration::from_millis(100)
        };
        for (key, known) in &self.deliveries {
            let then = match &known.place {
                Place::Waiting { due, .. } if !due.surely_before(call) => *due,
                Place::Leased { ends, .. } => *ends,
                _ => continue,
            };
            anything = true;
            if call.surely_before(then) {
                let longest = call.at_most_until(then).max(late);
                promise!(
                    batch.next_due.is_some_and(|next| next <= longest),
                    "{key:?} is due in {longest:?} at most, and the next in {:?}",
                    batch.next_due
                );
            }
        }
        promise!(
            anything || batch.next_due.is_none() || !batch.leased.is_empty(),
            "nothing waits, but something becomes due in {:?}",
            batch.next_due
        );
        Ok(())
    }

    /// Whether this call, which was no lease, made something available to who leases next.
    pub(crate) fn offers(&self, call: Window) -> bool {
        let in_flight = self.in_flight(|known| !known.surely_ended(call));
        self.deliveries.iter().any(|(key, known)| {
            let lane = (key.0.clone(), known.endpoint.clone());
            let count = in_flight.get(&lane).copied().unwrap_or(0);
            matches!(&known.place, Place::Waiting { due, .. } if *due == call)
                && !self.may_be_full(&lane, count)
                && !self.is_full(&key.0, call)
        })
    }

    /// Whether an endpoint with so many in flight need not be given more. Answers in between are passed over, so it may
    /// have more than this.
    fn may_be_full(&self, lane: &(TenantId, EndpointId), count: usize) -> bool {
        let halved = self.stalled.get(lane).map_or(0, |stalled| stalled / 4);
        let least = |cap: usize| (cap >> halved.min(7)).max(1);
        self.lowest_cap.is_some_and(|cap| count >= least(cap))
    }

    fn put_back_what_ended(&mut self, call: Window) {
        for known in self.deliveries.values_mut() {
            if known.surely_ended(call)
                && let Place::Leased { back, .. } = known.place
            {
                known.place = Place::Waiting {
                    state: back,
                    due: call,
                };
            }
        }
    }
}

// How much is in flight.
impl Reference {
    /// A tenant may have at most so many in flight, or as many as it can.
    pub(crate) fn cap(&mut self, tenant: TenantId, most: Option<u32>) {
        match most.and_then(|most| usize::try_from(most).ok()) {
            Some(most) => self.caps.insert(tenant, most),
            None => self.caps.remove(&tenant),
        };
    }

    /// Whether the tenant has as many in flight as it may have.
    fn is_full(&self, tenant: &TenantId, call: Window) -> bool {
        let count = self.in_flight_of(tenant, |known| !known.surely_ended(call));
        self.caps.get(tenant).is_some_and(|cap| count >= *cap)
    }

    fn in_flight_of(&self, tenant: &TenantId, counts: impl Fn(&Known) -> bool) -> usize {
        let in_flight = self.in_flight(counts);
        let of = in_flight.iter().filter(|((of, _), _)| of == tenant);
        of.map(|(_, count)| count).sum()
    }

    /// How many leases there are per tenant and endpoint, of those that `counts`.
    fn in_flight(
        &self,
        counts: impl Fn(&Known) -> bool,
    ) -> BTreeMap<(TenantId, EndpointId), usize> {
        let mut in_flight = BTreeMap::new();
        for (key, known) in &self.deliveries {
            if matches!(known.place, Place::Leased { .. }) && counts(known) {
                let lane = (key.0.clone(), known.endpoint.clone());
                *in_flight.entry(lane).or_default() += 1;
            }
        }
        in_flight
    }

    fn lane(&self, key: &Key) -> Option<(TenantId, EndpointId)> {
        let known = self.deliveries.get(key)?;
        Some((key.0.clone(), known.endpoint.clone()))
    }
}
