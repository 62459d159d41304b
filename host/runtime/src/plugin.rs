//! One version of one tenant's plugin, ready to be called.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use crate::code_id::CodeId;
use crate::config::Reuse;
use crate::engine::Shared;
use crate::error::Fault;
use crate::grants::Grants;
use crate::guest_log::GuestLog;
use crate::imports::Provided;
use crate::instance::{Instance, Linked, Metered};
use crate::limits::Limits;
use crate::manifest::{FailurePolicy, Manifest};
use crate::meter::Meter;
use crate::pools::{Pool, Pools};
use crate::record::Record;
use crate::resident;
use crate::rollout::Candidate;
use crate::state::State;
use crate::tenant_log::TenantLog;
use crate::types::{Digest, Exports};
use crate::versions::Probation;

/// A component, compiled and linked. Tenants with the same bytes share one, as it holds code only.
pub(crate) struct Code {
    pub(crate) id: CodeId,
    pub(crate) exports: Exports,
    pub(crate) linked: Linked,
    residence: Residence,
}

/// Whether code may be in memory.
#[derive(Default)]
struct Residence {
    /// It was called since the last look.
    called: AtomicBool,
    /// It was called since it was given back.
    resident: AtomicBool,
}

impl Code {
    pub(crate) fn new(id: CodeId, exports: Exports, linked: Linked) -> Self {
        Self {
            id,
            exports,
            linked,
            residence: Residence::default(),
        }
    }

    /// Note that it is about to run.
    pub(crate) fn note_call(&self) {
        // Read first: whoever writes takes the line from the other processors.
        if !self.residence.called.load(Ordering::Relaxed) {
            self.residence.called.store(true, Ordering::Relaxed);
        }
    }

    /// Give the memory of code back that was not called between two looks, of which this is one.
    pub(crate) fn look(&self) {
        let residence = &self.residence;
        if residence.called.swap(false, Ordering::Relaxed) {
            residence.resident.store(true, Ordering::Relaxed);
        } else if residence.resident.swap(false, Ordering::Relaxed) {
            self.give_back();
        }
    }

    /// Give its memory back until it is called.
    pub(crate) fn give_back(&self) {
        if let Err(error) = resident::give_back(self.linked.pre.component()) {
            tracing::debug!(digest = %self.id.digest, "the memory of code is not given back: {error}");
        }
    }
}

/// One version of one tenant's plugin. Whoever holds it can go on calling it after a newer version
/// took its place.
pub struct Plugin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tenant: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) code: Arc<Code>,
    pub(crate) manifest: Manifest,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    grants: Arc<Grants>,
    log: Option<Arc<TenantLog>>,
    pub(crate) limits: Arc<Limits>,
    /// Whether the call that ended last was stopped for its processor time, so that the next one is expected
    /// to run for long.
    pub(crate) runs_long: AtomicBool,
    pub(crate) reuse: Reuse,
    pub(crate) pools: Pools,
    pub(crate) record: Record,
    /// Watches its calls, if it is new and there is a version to go back to.
    pub(crate) probation: OnceLock<Probation>,
    /// Since when it is in force with this manifest, whatever restarts there were.
    pub(crate) in_force: OnceLock<Timestamp>,
    /// The version that is tried out beside it.
    pub(crate) beside: ArcSwapOption<Candidate>,
}

impl Plugin {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenant: Arc<str>,
        name: Arc<str>,
        code: Arc<Code>,
        manifest: Manifest,
    ) -> Self {
        let settings = &shared.config;
        Self {
            limits: Arc::new(settings.limits.with(&manifest.limits, &settings.most())),
            runs_long: AtomicBool::new(false),
            reuse: manifest.reuse.unwrap_or(settings.reuse),
            pools: Pools::new(&tenant, settings.max_concurrent_calls_per_plugin as usize),
            config: Arc::new(manifest.config.clone()),
            grants: Arc::new(manifest.grants.clone()),
            log: shared.logs.of(&tenant),
            record: Record::default(),
            probation: OnceLock::new(),
            in_force: OnceLock::new(),
            beside: ArcSwapOption::empty(),
            shared,
            tenant,
            name,
            code,
            manifest,
        }
    }

    /// The name: the file's, without `.wasm`, and after `@global/` if it is the operator's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version.
    pub fn digest(&self) -> Digest {
        self.code.id.digest
    }

    /// Which interfaces it exports.
    pub fn exports(&self) -> Exports {
        self.code.exports
    }

    /// What becomes of a delivery when it fails.
    pub fn policy(&self) -> FailurePolicy {
        self.manifest.failure
    }

    /// Whether it is to be called for events of this type.
    pub fn sees(&self, event_type: &str) -> bool {
        self.manifest.sees(event_type)
    }

    /// The limits it runs under: the host's, changed by its manifest as far as the host allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The version that an event goes to: this one, or the canary beside it. The same for every endpoint
    /// and every attempt, as long as there is that canary.
    pub fn version_for(self: &Arc<Self>, event: &str) -> Arc<Self> {
        match &*self.beside.load() {
            Some(candidate) if candidate.takes(event) => Arc::clone(&candidate.plugin),
            _ => Arc::clone(self),
        }
    }

    /// The version that an event goes to, if it exports this and is to see events of this type.
    pub fn version_with(
        self: &Arc<Self>,
        exports: impl FnOnce(Exports) -> bool,
        event: &str,
        event_type: &str,
    ) -> Option<Arc<Self>> {
        let version = self.version_for(event);
        (exports(version.exports()) && version.sees(event_type)).then_some(version)
    }

    /// Since when it is in force with the manifest that it has, over restarts.
    pub fn in_force_since(&self) -> Timestamp {
        self.in_force
            .get()
            .copied()
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Another one with the same code and settings, and nothing of what became of this one.
    pub(crate) fn anew(&self) -> Self {
        Self::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.tenant),
            Arc::clone(&self.name),
            Arc::clone(&self.code),
            self.manifest.clone(),
        )
    }

    /// Say that the host cannot use what the plugin answered for an event: it counts as a call that
    /// failed. `reason` names the rule, not the content.
    pub fn refuse_answer(&self, event: &str, reason: &str) {
        let fault = Fault::Refused {
            reason: reason.to_owned(),
        };
        self.record.note_error(&fault);
        if let Some(probation) = self.probation.get() {
            probation.disown(event, &fault);
        }
    }

    /// Whether an instance serves one call or several.
    pub fn reuse(&self) -> Reuse {
        self.reuse
    }

    /// A store for a call that cannot reuse one, for the tenant of this pool.
    pub(crate) fn fresh(&self, pool: &Pool) -> Metered {
        let meter = Arc::new(Meter::default());
        let log = GuestLog::new(
            self.log.clone(),
            self.shared.config.host_log,
            Arc::clone(&pool.tenant),
            Arc::clone(&self.name),
        );
        let provided = Provided {
            tenant: Arc::clone(&pool.tenant),
            grants: Arc::clone(&self.grants),
            services: self.shared.config.services.clone(),
        };
        let config = Arc::clone(&self.config);
        let state = State::new(&self.limits, config, log, provided);
        let (limits, counts) = (&self.limits, Arc::clone(&meter));
        let instance = Instance::prepare(&self.shared, state, limits, counts);
        Metered { instance, meter }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("tenant", &self.tenant)
            .field("name", &self.name)
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}
