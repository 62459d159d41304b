//! Running a finished delivery again.

use crate::clock::Clock;
use crate::error::{Context, Error, Result};
use crate::ids::{DeliveryId, TenantId};
use crate::ports::Replayer;

/// Replays a delivery of a tenant. Both ids are taken as text, as they come from a person or an API.
///
/// # Errors
/// `webhook delivery store not configured` without a store, `invalid webhook delivery` for an empty
/// or malformed id, `webhook delivery not found` when this tenant has no such delivery.
pub async fn replay<S: Replayer>(
    store: Option<&S>,
    clock: &impl Clock,
    tenant: &str,
    delivery: &str,
) -> Result<()> {
    let store = store
        .ok_or_else(|| Error::StoreNotConfigured(Context::words("expected a delivery store")))?;
    let tenant = TenantId::new(tenant)
        .map_err(|_| Error::delivery_field("tenant", "expected the id of a tenant"))?;
    let delivery = DeliveryId::new(delivery)?;
    store.replay(&tenant, &delivery, clock.now()).await
}
