//! Keeping the store told of what tenants may take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhook_core::{Quota, TenantId};
use wasmhook_store::Store;

/// The store is told again after so long though nothing changed here: another host may have told it what
/// an older file says, or it may have lost it.
const AGAIN: Duration = Duration::from_mins(1);

/// Tells a store of quotas when they have changed, and now and then.
pub struct Quotas {
    store: Arc<dyn Store>,
    told: Option<(Instant, Vec<(TenantId, Quota)>)>,
}

impl Quotas {
    /// Nothing is told yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, told: None }
    }

    /// These are the quotas now. If the store cannot be told, the next call tries again.
    pub async fn set(&mut self, quotas: Vec<(TenantId, Quota)>) {
        let fresh = |(at, told): &(Instant, Vec<_>)| at.elapsed() < AGAIN && *told == quotas;
        if self.told.as_ref().is_some_and(fresh) {
            return;
        }
        match self.store.set_quotas(&quotas).await {
            Ok(()) => self.told = Some((Instant::now(), quotas)),
            Err(error) => {
                self.told = None;
                tracing::warn!(%error, "the store could not be told of the tenants' quotas");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use wasmhook_core::delivery::default_id;
    use wasmhook_core::{Delivery, EndpointId, EventDraft};
    use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
    use wasmhook_store::{EventDeliveries, LeaseRequest};

    use super::*;

    #[tokio::test]
    async fn leases_keep_to_what_was_told_last() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(
            EmbeddedStore::open(EmbeddedConfig {
                path: folder.path().to_owned(),
                host: true,
            })
            .unwrap(),
        );
        let now = jiff::Timestamp::now();
        for n in 0..5 {
            let event = EventDraft {
                id: format!("evt_{n}"),
                tenant: "acme".to_owned(),
                event_type: "a.b".to_owned(),
                payload: bytes::Bytes::from_static(b"1"),
                ..EventDraft::default()
            }
            .accept(now, 10)
            .unwrap();
            let endpoint = EndpointId::new("main").unwrap();
            let id = default_id(&event.tenant_id, &event.id, &endpoint);
            let delivery = Delivery::pending(id, &event, endpoint, None, now);
            let item = EventDeliveries {
                event,
                deliveries: vec![delivery],
                extends: false,
            };
            store.enqueue(&[item]).await.unwrap();
        }
        let request = LeaseRequest {
            max: 10,
            duration: Duration::from_mins(1),
            max_per_endpoint: 10,
        };
        let quota = |most| {
            let max_in_flight = NonZeroU32::new(most);
            let quota = Quota {
                max_in_flight,
                ..Quota::default()
            };
            vec![(TenantId::new("acme").unwrap(), quota)]
        };
        let mut quotas = Quotas::new(Arc::clone(&store));
        for (told, leased) in [(quota(2), 2), (quota(2), 0), (quota(3), 1), (Vec::new(), 2)] {
            quotas.set(told).await;
            assert_eq!(store.lease(&request).await.unwrap().leased.len(), leased);
        }
    }
}
