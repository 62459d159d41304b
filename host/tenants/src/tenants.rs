//! The tenants of a host, kept in memory.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use wasmhook_core::error::Context;
use wasmhook_core::{
    Endpoint, EndpointId, EndpointPolicy, Error, Quota, Result, SecretName, SignatureProfile,
    SigningSecret, TenantId,
};

use crate::document::Rules;
use crate::environment::Environment;
use crate::problem::{LoadError, Problem, TenantStatus};
use crate::scan::{self, Scan};
use crate::snapshot::{Snapshot, Tenant};

/// Where tenants are kept, and what holds for all of them.
#[derive(Debug, Clone)]
pub struct TenantsConfig {
    /// Holds a folder per tenant, with an optional `tenant.toml` each.
    pub folder: PathBuf,
    /// Holds a folder per tenant, with a file per secret.
    pub secrets_folder: PathBuf,
    /// Which URLs endpoints may have.
    pub policy: EndpointPolicy,
    /// How endpoints are signed for that do not say.
    pub default_profile: SignatureProfile,
    /// How many deliveries of a tenant may be in flight whose file does not say; no such limit if missing.
    pub default_max_in_flight: Option<NonZeroU32>,
    /// Where secrets are looked for that are in no file.
    pub environment: Environment,
}

impl TenantsConfig {
    /// The defaults for two folders: https only, Standard Webhooks, the process's environment.
    pub fn new(folder: impl Into<PathBuf>, secrets_folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            secrets_folder: secrets_folder.into(),
            policy: EndpointPolicy::default(),
            default_profile: SignatureProfile::default(),
            default_max_in_flight: None,
            environment: Environment::default(),
        }
    }
}

/// All tenants with their endpoints and secrets. Cheap to clone; clones share one state. Lookups
/// take no lock and do no I/O.
#[derive(Debug, Clone)]
pub struct Tenants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scan: Scan,
    default_max_in_flight: Option<NonZeroU32>,
    current: ArcSwap<Snapshot>,
    /// Serialises reloads, and remembers the warnings that were given.
    warned: Mutex<HashSet<Problem>>,
}

impl Tenants {
    /// Reads the folder for the first time. Blocks on the disk.
    pub fn load(config: TenantsConfig) -> Result<Self, LoadError> {
        let tenants = Self(Arc::new(Inner {
            scan: Scan {
                folder: config.folder,
                secrets_folder: config.secrets_folder,
                rules: Rules {
                    policy: config.policy,
                    profile: config.default_profile,
                },
                environment: config.environment,
                runs: AtomicU64::new(0),
            },
            default_max_in_flight: config.default_max_in_flight,
            current: ArcSwap::default(),
            warned: Mutex::default(),
        }));
        tenants.read().map_err(|source| LoadError {
            path: tenants.0.scan.folder.clone(),
            source,
        })?;
        Ok(tenants)
    }

    /// Reads the folder again. What cannot be used keeps its last good version; see
    /// [`Self::problems`]. Harmless to call when nothing has changed. Blocks on the disk.
    pub fn reload(&self) {
        if let Err(error) = self.read() {
            // An unmounted folder is not the removal of every tenant.
            let before = self.0.current.load();
            let problem = Problem {
                tenant: None,
                path: self.0.scan.folder.clone(),
                key: None,
                reason: format!("the tenants folder cannot be read: {}", error.kind()),
            };
            if before.problems.contains(&problem) {
                return;
            }
            tracing::warn!(%problem, "the tenants folder stays as it was read last");
            self.0.current.store(Arc::new(Snapshot {
                tenants: before.tenants.clone(),
                problems: vec![problem],
            }));
        }
    }

    fn read(&self) -> std::io::Result<()> {
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.0.current.load_full();
        let (now, warnings) = self.0.scan.run(&before)?;
        for problem in scan::new_ones(&before.all_problems(), &now.all_problems()) {
            tracing::warn!(tenant = problem.tenant.as_ref().map(TenantId::as_str), %problem, "a tenant's files have a problem");
        }
        for warning in warnings {
            if !warned.contains(&warning) {
                tracing::warn!(%warning, "a tenant's secret is not kept well");
                warned.insert(warning);
            }
        }
        self.0.current.store(Arc::new(now));
        Ok(())
    }

    fn tenant(&self, tenant: &TenantId) -> Option<Arc<Tenant>> {
        self.0.current.load().tenants.get(tenant).cloned()
    }

    /// All tenants, sorted.
    pub fn ids(&self) -> Vec<TenantId> {
        let mut ids: Vec<_> = self.0.current.load().tenants.keys().cloned().collect();
        ids.sort();
        ids
    }

    /// The quotas of all tenants that have one, of their own or for want of one, sorted by tenant.
    pub fn quotas(&self) -> Vec<(TenantId, Quota)> {
        let current = self.0.current.load();
        let default = self.0.default_max_in_flight;
        let mut quotas: Vec<_> = current
            .tenants
            .iter()
            .map(|(id, tenant)| {
                let max_in_flight = tenant.quota.max_in_flight.or(default);
                let quota = Quota {
                    max_in_flight,
                    ..tenant.quota
                };
                (id.clone(), quota)
            })
            .filter(|(_, quota)| !quota.is_default())
            .collect();
        quotas.sort_by(|a, b| a.0.cmp(&b.0));
        quotas
    }

    /// The tenant's endpoints in the order of its file, disabled ones included; none for a tenant
    /// that does not exist.
    pub fn endpoints(&self, tenant: &TenantId) -> Arc<[Arc<Endpoint>]> {
        let current = self.0.current.load();
        current
            .tenants
            .get(tenant)
            .map_or_else(Arc::default, |t| Arc::clone(&t.endpoints))
    }

    /// One endpoint of the tenant.
    pub fn endpoint(&self, tenant: &TenantId, endpoint: &EndpointId) -> Option<Arc<Endpoint>> {
        self.0
            .current
            .load()
            .tenants
            .get(tenant)?
            .by_id
            .get(endpoint)
            .cloned()
    }

    /// Whether the tenant has a file of endpoints that this host could never read: it has some, and nobody knows
    /// which, so what is for them has to wait.
    pub fn is_unread(&self, tenant: &TenantId) -> bool {
        let current = self.0.current.load();
        current.tenants.get(tenant).is_some_and(|t| t.unread)
    }

    /// A secret of the tenant, or `invalid webhook endpoint` with the reason why there is none.
    pub fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Arc<SigningSecret>> {
        let current = self.0.current.load();
        let refused = |reason: &str| {
            let words = format!("field `secrets`: secret `{name}`: {reason}");
            Error::InvalidEndpoint(Context::words(words))
        };
        let known = current
            .tenants
            .get(tenant)
            .ok_or_else(|| refused("unknown tenant"))?;
        match known.secrets.get(name) {
            Some(Ok(secret)) => Ok(Arc::clone(secret)),
            Some(Err(reason)) => Err(refused(reason)),
            // A plugin may name a secret that no endpoint of the file does.
            None => scan::from_environment(
                &self.0.scan.environment,
                tenant,
                name,
                current.tenants.keys(),
            )
            .unwrap_or_else(|| Err("there is no such secret".to_owned()))
            .map_err(|reason| refused(&reason)),
        }
    }

    /// All secrets that sign for the endpoint, in its order; the first that cannot be had is the
    /// error.
    pub fn secrets_for(&self, endpoint: &Endpoint) -> Result<Vec<Arc<SigningSecret>>> {
        endpoint
            .secrets
            .iter()
            .map(|name| self.secret(&endpoint.tenant_id, name))
            .collect()
    }

    /// Everything that is wrong in the folder at present.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.current.load().all_problems()
    }

    /// How the tenant stands; `None` if it does not exist.
    pub fn status(&self, tenant: &TenantId) -> Option<TenantStatus> {
        let found = self.tenant(tenant)?;
        Some(TenantStatus {
            id: tenant.clone(),
            endpoints: found.endpoints.len(),
            last_good: found.last_good,
            problems: found.problems.clone(),
        })
    }
}
