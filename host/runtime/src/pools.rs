//! Where the instances of one version of a plugin wait for their next call, and how many calls it has at
//! once: one pool for a tenant's plugin, and for one of the operator a pool for each tenant whose events
//! it sees, so that no instance ever serves two tenants and none takes the places of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::config::Reuse;
use crate::folder::GLOBAL;
use crate::instance::Idle;

/// The instances and the places of a plugin for one tenant.
pub(crate) struct Pool {
    pub(crate) tenant: Arc<str>,
    pub(crate) idle: Arc<Idle>,
    /// A permit for each call that may run.
    pub(crate) places: Semaphore,
}

/// The pools of one version of a plugin.
pub(crate) enum Pools {
    /// Of a tenant's own.
    One(Arc<Pool>),
    /// Of the operator's, made with a tenant's first call.
    ByTenant {
        places: usize,
        pools: Mutex<HashMap<Arc<str>, Arc<Pool>>>,
    },
}

impl Pool {
    fn new(tenant: Arc<str>, places: usize) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            idle: Arc::default(),
            places: Semaphore::new(places),
        })
    }
}

impl Pools {
    /// For a plugin of this tenant, with so many calls at once.
    pub(crate) fn new(tenant: &Arc<str>, places: usize) -> Self {
        if **tenant == *GLOBAL {
            let pools = Mutex::default();
            Self::ByTenant { places, pools }
        } else {
            Self::One(Pool::new(Arc::clone(tenant), places))
        }
    }

    /// The pool for an event of this tenant, or for a call that is about no event, such as a trial start:
    /// what a plugin of the operator leaves after that is for nobody.
    pub(crate) fn of(&self, tenant: Option<&str>) -> Arc<Pool> {
        match (self, tenant) {
            (Self::One(pool), _) => Arc::clone(pool),
            (Self::ByTenant { places, .. }, None) => Pool::new(Arc::from(GLOBAL), *places),
            (Self::ByTenant { places, pools }, Some(tenant)) => {
                let mut pools = lock(pools);
                if let Some(pool) = pools.get(tenant) {
                    return Arc::clone(pool);
                }
                let tenant: Arc<str> = Arc::from(tenant);
                let pool = Pool::new(Arc::clone(&tenant), *places);
                pools.insert(tenant, Arc::clone(&pool));
                pool
            }
        }
    }

    /// End the instances that are too old, and forget the tenants that have none and no call: what is kept
    /// is bounded by the idle instances of the host and the tenants of the last seconds.
    pub(crate) fn sweep(&self, reuse: Reuse) {
        match self {
            Self::One(pool) => pool.idle.sweep(reuse),
            Self::ByTenant { pools, .. } => {
                // Ending instances takes a while, and calls wait for the lock.
                let all: Vec<_> = lock(pools).values().cloned().collect();
                for pool in all {
                    pool.idle.sweep(reuse);
                }
                // Whoever calls holds the pool, and takes it only under the lock.
                lock(pools).retain(|_, pool| Arc::strong_count(pool) > 1 || !pool.idle.is_empty());
            }
        }
    }
}

fn lock(
    pools: &Mutex<HashMap<Arc<str>, Arc<Pool>>>,
) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Pool>>> {
    pools.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_plugin_has_one_pool_and_one_of_the_operator_one_for_each_tenant_that_calls() {
        let own = Pools::new(&"acme".into(), 4);
        assert!(Arc::ptr_eq(&own.of(Some("acme")), &own.of(None)));

        let global = Pools::new(&GLOBAL.into(), 4);
        let (acme, other) = (global.of(Some("acme")), global.of(Some("other")));
        assert!(Arc::ptr_eq(&acme, &global.of(Some("acme"))));
        assert!(!Arc::ptr_eq(&acme, &other));
        assert_eq!((&*acme.tenant, &*other.tenant), ("acme", "other"));
        drop(other);
        global.sweep(Reuse::default());
        let Pools::ByTenant { pools, .. } = &global else {
            panic!("it has one pool");
        };
        let left: Vec<Arc<str>> = lock(pools).keys().cloned().collect();
        assert_eq!(left, ["acme".into()], "nobody calls for the other one");
    }
}
