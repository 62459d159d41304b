//! What was read last, as it is answered from.

use std::collections::HashMap;
use std::sync::Arc;

use wasmhook_core::{Endpoint, EndpointId, Quota, SecretName, TenantId};

use crate::problem::Problem;
use crate::secrets::Loaded;
use crate::stamp::Stamps;

/// All tenants at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) tenants: HashMap<TenantId, Arc<Tenant>>,
    /// Problems that are no tenant's.
    pub(crate) problems: Vec<Problem>,
}

/// One tenant at one moment.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) quota: Quota,
    pub(crate) endpoints: Arc<[Arc<Endpoint>]>,
    pub(crate) by_id: HashMap<EndpointId, Arc<Endpoint>>,
    pub(crate) secrets: HashMap<SecretName, Loaded>,
    /// Whether endpoints and quota are those of an earlier `tenant.toml`.
    pub(crate) last_good: bool,
    /// Whether there is a `tenant.toml` that could never be read, so that nobody knows what endpoints there are.
    pub(crate) unread: bool,
    pub(crate) problems: Vec<Problem>,
    /// How its files looked, if they alone say what it is and nothing is wrong with them: as long as they
    /// look the same they need not be read again.
    pub(crate) stamps: Option<Stamps>,
}

impl Tenant {
    pub(crate) fn new(endpoints: Arc<[Arc<Endpoint>]>, quota: Quota) -> Self {
        Self {
            quota,
            by_id: endpoints
                .iter()
                .map(|e| (e.id.clone(), Arc::clone(e)))
                .collect(),
            endpoints,
            secrets: HashMap::new(),
            last_good: false,
            unread: false,
            problems: Vec::new(),
            stamps: None,
        }
    }
}

impl Snapshot {
    /// Every problem, in a stable order.
    pub(crate) fn all_problems(&self) -> Vec<Problem> {
        let mut all: Vec<_> = self
            .tenants
            .values()
            .flat_map(|t| &t.problems)
            .cloned()
            .collect();
        all.extend(self.problems.iter().cloned());
        all.sort_by(|a, b| (&a.path, &a.key, &a.reason).cmp(&(&b.path, &b.key, &b.reason)));
        all
    }
}
