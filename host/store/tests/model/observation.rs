//! What a store shows, held against the reference: every record, list, count and event.

use std::collections::BTreeMap;

use wasmhook_core::{DeliveryState, Event, EventId, TenantId};
use wasmhook_store::{Backlog, Record};

use crate::reference::{Key, Known, Place, Reference, Verdict, check_facts, key, promise};
use crate::window::Window;

/// What was read with nothing written meanwhile.
pub(crate) struct Observation {
    /// When.
    pub(crate) at: Window,
    /// The tenants that have deliveries, in order.
    pub(crate) tenants: Vec<TenantId>,
    /// Per tenant, all its deliveries, newest first.
    pub(crate) lists: BTreeMap<TenantId, Vec<Record>>,
    /// Per tenant, a list of those in one state.
    pub(crate) filtered: Vec<(TenantId, DeliveryState, Vec<Record>)>,
    /// The counts.
    pub(crate) backlog: Backlog,
    /// Per event, whether it is known, and the event.
    pub(crate) events: Vec<((TenantId, EventId), bool, Option<Event>)>,
}

impl Reference {
    /// Compares, and learns which of the leases that may have ended were put back.
    pub(crate) fn observe(&mut self, seen: &Observation) -> Verdict {
        let mut expected: Vec<_> = self.deliveries.keys().map(|key| key.0.clone()).collect();
        expected.dedup();
        promise!(
            seen.tenants == expected,
            "the tenants are said to be {:?}, not {expected:?}",
            seen.tenants
        );
        for (tenant, records) in &seen.lists {
            self.observe_list(seen.at, tenant, records)?;
        }
        for (tenant, state, records) in &seen.filtered {
            let all = seen.lists.get(tenant).map_or(&[][..], Vec::as_slice);
            let expected: Vec<_> = all
                .iter()
                .filter(|r| r.delivery.state == *state)
                .map(|r| &r.delivery)
                .collect();
            let found: Vec<_> = records.iter().map(|r| &r.delivery).collect();
            promise!(
                found == expected,
                "the list of {state} of {tenant} is {found:?}, not {expected:?}"
            );
        }
        observe_counts(seen)?;
        for (id, known, event) in &seen.events {
            self.observe_event(id, *known, event.as_ref())?;
        }
        Ok(())
    }

    fn observe_list(&mut self, at: Window, tenant: &TenantId, records: &[Record]) -> Verdict {
        let mut expected: Vec<_> = self
            .deliveries
            .iter()
            .filter(|(key, _)| key.0 == *tenant)
            .map(|(key, known)| (known.born, key.clone()))
            .collect();
        expected.sort();
        expected.reverse();
        let expected: Vec<_> = expected.into_iter().map(|(_, key)| key).collect();
        let found: Vec<_> = records.iter().map(|record| key(&record.delivery)).collect();
        promise!(
            found == expected,
            "{tenant} has {found:?} by the list, not {expected:?}"
        );
        for (key, record) in expected.iter().zip(records) {
            self.observe_record(at, key, record)?;
        }
        Ok(())
    }

    /// One record against what is known.
    pub(crate) fn observe_record(&mut self, at: Window, key: &Key, record: &Record) -> Verdict {
        let Some(known) = self.deliveries.get(key) else {
            return Err(format!("{key:?} is kept and not known"));
        };
        check_facts(key, known, &record.delivery, &record.attempts)?;
        let state = record.delivery.state;
        let put_back = check_place(at, key, known, record)?;
        if put_back && let Some(known) = self.deliveries.get_mut(key) {
            known.place = Place::Waiting { state, due: at };
        }
        Ok(())
    }

    fn observe_event(
        &self,
        id: &(TenantId, EventId),
        known: bool,
        event: Option<&Event>,
    ) -> Verdict {
        let Some(story) = self.events.get(id) else {
            promise!(!known, "event {id:?} is known, and never was or is removed");
            promise!(event.is_none(), "event {id:?} is kept with no delivery");
            return Ok(());
        };
        promise!(known || story.bare, "event {id:?} is not known");
        match event {
            Some(event) => promise!(
                story.versions.contains(event),
                "event {id:?} is another than was pushed"
            ),
            None => promise!(story.bare, "event {id:?} is not kept"),
        }
        Ok(())
    }
}

/// Whether the record shows that an ended lease was put back.
fn check_place(at: Window, key: &Key, known: &Known, record: &Record) -> Result<bool, String> {
    let state = record.delivery.state;
    let leased = state == DeliveryState::Leased;
    promise!(
        record.lease_until.is_some() == leased,
        "{key:?} is {state} with the end of a lease at {:?}",
        record.lease_until
    );
    let expected = match &known.place {
        Place::Waiting { state, .. } | Place::Finished { state, .. } => *state,
        Place::Behind => DeliveryState::Pending,
        Place::Blocking => DeliveryState::DeadLetter,
        Place::Leased { back, .. } if known.may_have_ended(at) && state == *back => {
            return Ok(true);
        }
        Place::Leased { ends, .. } => {
            if let Some(until) = record.lease_until.map(Window::at) {
                promise!(
                    until.maybe_before(*ends) && ends.maybe_before(until),
                    "the lease of {key:?} ends at {until:?}, not in {ends:?}"
                );
            }
            DeliveryState::Leased
        }
    };
    promise!(state == expected, "{key:?} is {state}, not {expected}");
    Ok(false)
}

fn observe_counts(seen: &Observation) -> Verdict {
    // What lists cannot tell: no delivery says that its endpoint stalls.
    let mut counted = Backlog {
        stalling_endpoints: seen.backlog.stalling_endpoints,
        ..Backlog::default()
    };
    for record in seen.lists.values().flatten() {
        *match record.delivery.state {
            DeliveryState::Pending | DeliveryState::Failed => &mut counted.waiting,
            DeliveryState::Leased => &mut counted.leased,
            DeliveryState::Succeeded => &mut counted.succeeded,
            DeliveryState::DeadLetter => &mut counted.dead_letter,
        } += 1;
    }
    promise!(
        seen.backlog == counted,
        "the backlog is said to be {:?}, and the lists hold {counted:?}",
        seen.backlog
    );
    Ok(())
}
