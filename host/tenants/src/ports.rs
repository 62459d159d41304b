//! The domain's ports, served from memory.

use std::sync::Arc;

use wasmhook_core::ports::{EndpointGetter, EndpointRegistry, SecretResolver};
use wasmhook_core::{Endpoint, EndpointId, EventType, Result, SecretName, SigningSecret, TenantId};

use crate::tenants::Tenants;

impl EndpointRegistry for Tenants {
    async fn list(&self, tenant: &TenantId, event_type: &EventType) -> Result<Vec<Arc<Endpoint>>> {
        let wants = |endpoint: &&Arc<Endpoint>| {
            !endpoint.disabled && endpoint.events.iter().any(|event| event.covers(event_type))
        };
        Ok(self
            .endpoints(tenant)
            .iter()
            .filter(wants)
            .cloned()
            .collect())
    }
}

impl EndpointGetter for Tenants {
    async fn get(&self, tenant: &TenantId, endpoint: &EndpointId) -> Result<Option<Arc<Endpoint>>> {
        Ok(self.endpoint(tenant, endpoint))
    }
}

impl SecretResolver for Tenants {
    fn resolve(&self, tenant: &TenantId, name: &SecretName) -> Result<Arc<SigningSecret>> {
        self.secret(tenant, name)
    }
}
