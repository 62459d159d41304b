//! Reading everything back, and comparing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use wasmhook_core::{DeliveryState, EventId, TenantId};
use wasmhook_store::{Filter, Record, Store};

use super::{World, event_id, tenant, words};
use crate::observation::Observation;
use crate::reference::{Verdict, promise};
use crate::steps::{CLIENTS, EVENTS, TENANTS};
use crate::window::Window;

impl World {
    pub(super) async fn list(
        &self,
        tenant_name: &str,
        state: Option<DeliveryState>,
        limit: usize,
    ) -> Result<Vec<Record>, String> {
        let mut filter = Filter {
            tenant: tenant(tenant_name),
            state,
            cursor: None,
            limit,
        };
        let mut all = Vec::new();
        for _ in 0..1000 {
            let store = &self.clients[self.looks % CLIENTS].store;
            let page = store.list(&filter).await.map_err(|error| words(&error))?;
            promise!(page.records.len() <= limit, "a page is longer than {limit}");
            all.extend(page.records);
            match page.next {
                Some(next) => filter.cursor = Some(next),
                None => return Ok(all),
            }
        }
        Err(format!("the list of {tenant_name} never ends"))
    }

    /// Reads everything back and compares.
    pub(super) async fn look(&mut self) -> Verdict {
        self.looks += 1;
        let state = DeliveryState::ALL[self.looks % DeliveryState::ALL.len()];
        let mut lists = BTreeMap::new();
        let mut filtered = Vec::new();
        for name in TENANTS {
            // Small pages now and then.
            let limit = [2, 100, 7][self.looks % 3];
            lists.insert(tenant(name), self.list(name, None, limit).await?);
            filtered.push((
                tenant(name),
                state,
                self.list(name, Some(state), limit).await?,
            ));
        }
        let store = Arc::clone(&self.clients[self.looks % CLIENTS].store);
        let ids: Vec<(TenantId, EventId)> = TENANTS
            .iter()
            .flat_map(|name| EVENTS.iter().map(|id| (tenant(name), event_id(id))))
            .collect();
        let known = store.known(&ids).await.map_err(|error| words(&error))?;
        let events = join_all(ids.iter().map(|(tenant, id)| store.event(tenant, id))).await;
        let events = events
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| words(&error))?;
        let events = ids
            .into_iter()
            .zip(known)
            .zip(events)
            .map(|((id, known), event)| (id, known, event));
        let observation = Observation {
            tenants: store.tenants().await.map_err(|error| words(&error))?,
            lists,
            filtered,
            backlog: store.backlog().await.map_err(|error| words(&error))?,
            events: events.collect(),
            at: Window::at(self.subject.now()),
        };
        self.reference.observe(&observation)?;
        self.look_closely(&store).await
    }

    /// One delivery by its id, for its own tenant and for another.
    async fn look_closely(&mut self, store: &Arc<dyn Store>) -> Verdict {
        let count = self.reference.deliveries.len().max(1);
        let one = self.reference.deliveries.keys().nth(self.looks % count);
        let Some((owner, id)) = one.cloned() else {
            return Ok(());
        };
        let record = store
            .get(&owner, &id)
            .await
            .map_err(|error| words(&error))?;
        let Some(record) = record else {
            return Err(format!(
                "delivery {id} of {owner} is listed and cannot be had"
            ));
        };
        let first = self.reference.turn_before(&(owner.clone(), id.clone()));
        promise!(
            record.behind == first,
            "delivery {id} of {owner} is behind {:?}, not {first:?}",
            record.behind
        );
        let at = Window::at(self.subject.now());
        self.reference
            .observe_record(at, &(owner.clone(), id.clone()), &record)?;
        for other in TENANTS.map(tenant) {
            let known = self
                .reference
                .deliveries
                .contains_key(&(other.clone(), id.clone()));
            let found = store
                .get(&other, &id)
                .await
                .map_err(|error| words(&error))?
                .is_some();
            promise!(
                found == known,
                "delivery {id} of {owner} is shown to {other}"
            );
        }
        Ok(())
    }
}
