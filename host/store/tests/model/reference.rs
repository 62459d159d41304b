//! The reference: what a store promises, in the plainest form.
//!
//! A store answers a call somewhere within the call's [`Window`], so near the end of a lease two
//! answers may be right. The reference then takes the one it is given; everything else it demands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, EndpointId, Event, EventId, Sequence, TenantId,
};
use wasmhook_store::{
    Batch, EventDeliveries, LeaseRequest, LeaseToken, Leased, Outcome, Recorded, Retention,
    StoreError,
};

use crate::window::Window;

/// Right, or which promise was broken.
pub(crate) type Verdict = Result<(), String>;

macro_rules! promise {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use promise;

/// A delivery's name: ids are unique within a tenant only.
pub(crate) type Key = (TenantId, DeliveryId);

/// Everything that a store should know.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) deliveries: BTreeMap<Key, Known>,
    pub(crate) events: BTreeMap<(TenantId, EventId), Story>,
    /// Counts calls, so that it is known what came first.
    calls: u64,
    /// The fewest in flight that one endpoint was limited to so far. A lane that was full under a
    /// lower limit need not be looked at again before one of its leases ends.
    lowest_cap: Option<usize>,
    /// The most that tenants may have in flight, of those that have such a quota.
    pub(crate) caps: BTreeMap<TenantId, usize>,
}

/// What is known of an event.
pub(crate) struct Story {
    /// What it may contain: one version, unless it had no deliveries at first.
    pub(crate) versions: Vec<Event>,
    /// It has no deliveries, so a store may have forgotten it.
    pub(crate) bare: bool,
}

/// A delivery.
pub(crate) struct Known {
    pub(crate) event: EventId,
    pub(crate) endpoint: EndpointId,
    /// Which call made it, and its place in the call: lists are in the opposite order.
    pub(crate) born: (u64, usize),
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) replayed_at_attempt: u32,
    /// When the host said that the next attempt is due, after one that failed, or the first.
    pub(crate) next_at: Option<Timestamp>,
    /// When it was to be due when it was made, if that was to be later.
    scheduled: Option<Timestamp>,
    /// The sequence that it is in, if any.
    pub(crate) sequence: Option<Sequence>,
    pub(crate) place: Place,
}

/// Where a delivery is, with what matters there.
pub(crate) enum Place {
    /// To be leased once it is due.
    Waiting { state: DeliveryState, due: Window },
    /// Held by whoever has the token; back in `back` when the lease ends. It is put back by the
    /// next call that leases, and until then the holder may still record.
    Leased {
        back: DeliveryState,
        token: LeaseToken,
        ends: Window,
    },
    /// Waiting for its turn in its sequence, as pending.
    Behind,
    /// A dead letter that its sequence waits for.
    Blocking,
    /// Succeeded or dead letter, by the call of this number.
    Finished {
        state: DeliveryState,
        at: Window,
        call: u64,
    },
}

impl Known {
    /// Whether a call at `now` may find that the lease has ended.
    pub(crate) fn may_have_ended(&self, now: Window) -> bool {
        matches!(&self.place, Place::Leased { ends, .. } if ends.maybe_before(now))
    }

    fn surely_ended(&self, now: Window) -> bool {
        matches!(&self.place, Place::Leased { ends, .. } if ends.surely_before(now))
    }

    /// Whether a call at `now` finds it due, unless its endpoint has too many in flight.
    pub(crate) fn surely_available(&self, now: Window) -> bool {
        match &self.place {
            Place::Waiting { due, .. } => due.surely_before(now),
            Place::Leased { .. } => self.surely_ended(now),
            Place::Behind | Place::Blocking | Place::Finished { .. } => false,
        }
    }

    fn is_held_with(&self, held: &LeaseToken) -> bool {
        matches!(&self.place, Place::Leased { token, .. } if token == held)
    }

    /// The number of attempts so far.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }
}

pub(crate) fn key(delivery: &Delivery) -> Key {
    (delivery.tenant_id.clone(), delivery.id.clone())
}

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
                    self.lowest_cap.is_some_and(|cap| count >= cap) || self.is_full(&key.0, call),
                    "{key:?} is due and was not leased, though only {count} are in flight"
                );
            }
        }
        Ok(())
    }

    /// Whether this call, which was no lease, made something available to who leases next.
    pub(crate) fn offers(&self, call: Window) -> bool {
        let in_flight = self.in_flight(|known| !known.surely_ended(call));
        self.deliveries.iter().any(|(key, known)| {
            let lane = (key.0.clone(), known.endpoint.clone());
            let count = in_flight.get(&lane).copied().unwrap_or(0);
            matches!(&known.place, Place::Waiting { due, .. } if *due == call)
                && self.lowest_cap.is_none_or(|cap| count < cap)
                && !self.is_full(&key.0, call)
        })
    }

    /// Whether the tenant may have as many in flight as it may.
    fn is_full(&self, tenant: &TenantId, call: Window) -> bool {
        let count = self.in_flight_of(tenant, |known| !known.surely_ended(call));
        self.caps.get(tenant).is_some_and(|cap| count >= *cap)
    }

    fn in_flight_of(&self, tenant: &TenantId, counts: impl Fn(&Known) -> bool) -> usize {
        let in_flight = self.in_flight(counts);
        let of = in_flight.iter().filter(|((of, _), _)| of == tenant);
        of.map(|(_, count)| count).sum()
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
        let allowed = match &known.place {
            Place::Finished { .. } => {
                promise!(answer.is_ok(), "{key:?} was not replayed: {answer:?}");
                known.replayed_at_attempt = known.attempt();
                known.next_at = None;
                known.place = if known.sequence.is_some() {
                    Place::Behind
                } else {
                    Place::Waiting {
                        state: DeliveryState::Pending,
                        due: call,
                    }
                };
                self.advance(call);
                return Ok(());
            }
            Place::Blocking => {
                promise!(answer.is_ok(), "{key:?} was not replayed: {answer:?}");
                known.replayed_at_attempt = known.attempt();
                known.next_at = None;
                known.place = Place::Waiting {
                    state: DeliveryState::Pending,
                    due: call,
                };
                return Ok(());
            }
            Place::Waiting { state, .. } => vec![*state],
            Place::Behind => vec![DeliveryState::Pending],
            Place::Leased { back, .. } if known.may_have_ended(call) => {
                vec![DeliveryState::Leased, *back]
            }
            Place::Leased { .. } => vec![DeliveryState::Leased],
        };
        promise!(
            matches!(answer, Err(StoreError::NotFinished(state)) if allowed.contains(state)),
            "the replay of {key:?}, which is {allowed:?}, was answered {answer:?}"
        );
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

    /// A tenant may have at most so many in flight, or as many as it can.
    pub(crate) fn cap(&mut self, tenant: TenantId, most: Option<u32>) {
        match most.and_then(|most| usize::try_from(most).ok()) {
            Some(most) => self.caps.insert(tenant, most),
            None => self.caps.remove(&tenant),
        };
    }

    /// The dead letters that block.
    pub(crate) fn blocking(&self) -> Vec<Key> {
        self.deliveries
            .iter()
            .filter(|(_, known)| matches!(known.place, Place::Blocking))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Of each sequence in which it is nobody's turn, the delivery that was made first is due, or waits
    /// for its time.
    fn advance(&mut self, call: Window) {
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
                    due: at.map_or(call, |at| by_time(call, at)),
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

    /// Housekeeping removed finished deliveries; `kept` is what is listed since.
    pub(crate) fn retain(
        &mut self,
        call: Window,
        retention: Retention,
        removed: usize,
        kept: &BTreeSet<Key>,
    ) -> Verdict {
        self.calls += 1;
        let gone: Vec<_> = self
            .deliveries
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        let bare = self.events.values().filter(|story| story.bare).count();
        promise!(
            (gone.len()..=gone.len() + bare).contains(&removed),
            "{} deliveries are gone, and {removed} are said to be",
            gone.len()
        );
        let tenants: BTreeSet<_> = self
            .deliveries
            .keys()
            .map(|(tenant, _)| tenant.clone())
            .collect();
        for tenant in tenants {
            self.check_retained(call, retention, &tenant, kept)?;
        }
        for key in gone {
            let Some(known) = self.deliveries.remove(&key) else {
                continue;
            };
            let id = (key.0.clone(), known.event.clone());
            let last = !self
                .deliveries
                .iter()
                .any(|(other, known)| other.0 == id.0 && known.event == id.1);
            if last {
                self.events.remove(&id);
            }
        }
        Ok(())
    }

    fn check_retained(
        &self,
        call: Window,
        retention: Retention,
        tenant: &TenantId,
        kept: &BTreeSet<Key>,
    ) -> Verdict {
        let (mut finished, mut removed_young, mut left) = (0_usize, 0_usize, 0_usize);
        let (mut last_removed, mut first_left) = (0, u64::MAX);
        for (key, known) in self.deliveries.iter().filter(|(key, _)| key.0 == *tenant) {
            let Place::Finished { at, call: by, .. } = &known.place else {
                promise!(
                    kept.contains(key),
                    "{key:?} was removed before it was finished"
                );
                continue;
            };
            finished += 1;
            let end = at.plus(retention.age);
            if kept.contains(key) {
                left += 1;
                first_left = first_left.min(*by);
                promise!(
                    !end.surely_before(call),
                    "{key:?} is kept longer than its time"
                );
            } else {
                last_removed = last_removed.max(*by);
                removed_young += usize::from(call.surely_before(end));
            }
        }
        promise!(
            left <= retention.count,
            "{left} finished deliveries of {tenant} are kept, not {}",
            retention.count
        );
        promise!(
            removed_young <= finished.saturating_sub(retention.count),
            "{removed_young} of {tenant} were removed before their time, with {finished} of {} kept",
            retention.count
        );
        promise!(
            last_removed <= first_left,
            "of {tenant}, what finished later was removed before what finished earlier"
        );
        Ok(())
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

/// What deliveries must have in common to be in one sequence.
fn sequence(key: &Key, known: &Known) -> Option<(TenantId, EndpointId, String)> {
    let name = known.sequence.as_ref()?.name();
    Some((key.0.clone(), known.endpoint.clone(), name.to_owned()))
}

/// What does not depend on the state.
pub(crate) fn check_facts(
    key: &Key,
    known: &Known,
    delivery: &Delivery,
    attempts: &[Attempt],
) -> Verdict {
    promise!(
        (&delivery.event_id, &delivery.endpoint_id) == (&known.event, &known.endpoint),
        "{key:?} is of another event or endpoint than was pushed"
    );
    promise!(
        delivery.sequence == known.sequence,
        "{key:?} is in sequence {:?}, not {:?}",
        delivery.sequence,
        known.sequence
    );
    promise!(
        delivery.attempt == known.attempt(),
        "{key:?} has {} attempts, not {}",
        delivery.attempt,
        known.attempt()
    );
    promise!(
        delivery.replayed_at_attempt == known.replayed_at_attempt,
        "{key:?} counts retries from {}, not {}",
        delivery.replayed_at_attempt,
        known.replayed_at_attempt
    );
    promise!(
        attempts == known.attempts,
        "{key:?} has other attempts than were recorded"
    );
    promise!(
        known.next_at.is_none_or(|at| at == delivery.next_at),
        "{key:?} is due at {}, not at {:?}",
        delivery.next_at,
        known.next_at
    );
    Ok(())
}

/// When a new delivery is due: at once, or at its time by the store's clock.
fn first_due(call: Window, delivery: &Delivery) -> Window {
    if delivery.is_scheduled() {
        by_time(call, delivery.next_at)
    } else {
        call
    }
}

/// The time that a new delivery is shown to wait for, if it surely waits.
fn scheduled(call: Window, delivery: &Delivery) -> Option<Timestamp> {
    let waits = delivery.is_scheduled() && call.surely_before(Window::at(delivery.next_at));
    waits.then_some(delivery.next_at)
}

/// Due at a time that a host said, in a call that may have come before or after it.
fn by_time(call: Window, at: Timestamp) -> Window {
    let at = Window::at(at);
    Window {
        from: at.from.max(call.from),
        to: at.to.max(call.to),
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
