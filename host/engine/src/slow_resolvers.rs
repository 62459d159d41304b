//! Tenants whose resolver keeps intake waiting, which is everybody's.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use wasmhook_core::TenantId;

/// How long intake waits for a resolver. A call of a Rust guest takes some ten microseconds; one that asks a
/// service over HTTP may well take longer, and is better off with a worker.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// How long after that the tenant's events pass intake without asking. Each tenant can hold up intake for
/// [`PATIENCE`] once in this time, whatever it pushes.
const REST: Duration = Duration::from_secs(30);

/// Until when the resolvers of which tenants are not asked at intake.
#[derive(Default)]
pub(crate) struct SlowResolvers(RwLock<HashMap<TenantId, Instant>>);

impl SlowResolvers {
    pub(crate) fn contains(&self, tenant: &TenantId) -> bool {
        let slow = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slow.get(tenant)
            .is_some_and(|until| Instant::now() < *until)
    }

    /// Whether it is new among them.
    pub(crate) fn add(&self, tenant: &TenantId) -> bool {
        let now = Instant::now();
        let mut slow = self.0.write().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|_, until| now < *until);
        slow.insert(tenant.clone(), now + REST).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_resolver_rests_and_others_do_not() {
        let slow = SlowResolvers::default();
        let (acme, other) = (
            TenantId::new("acme").unwrap(),
            TenantId::new("other").unwrap(),
        );
        assert!(!slow.contains(&acme));
        assert!(slow.add(&acme));
        assert!(!slow.add(&acme));
        assert!(slow.contains(&acme));
        assert!(!slow.contains(&other));
    }
}
