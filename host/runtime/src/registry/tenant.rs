//! The plugins of a tenant, for who calls them.

use std::sync::Arc;

use crate::manifest::{FailurePolicy, Manifest};
use crate::plugin::Plugin;
use crate::types::Exports;

/// The plugins of one tenant, as they were at one moment.
#[derive(Debug, Default)]
pub struct TenantPlugins {
    /// The plugin that chooses endpoints: the first by name that exports `resolve`. A further one is
    /// refused as a resolver, with a reason in the status.
    pub resolver: Option<Arc<Plugin>>,
    /// The plugins that export `transform`, in the order of their names.
    pub transforms: Vec<Arc<Plugin>>,
    /// The plugins that export `classify`, in the order of their names.
    pub classifiers: Vec<Arc<Plugin>>,
    /// The plugins that export `sign`: each for the endpoints that name it.
    pub signers: Vec<Arc<Plugin>>,
    /// Plugins whose file is there and of which no version can serve: still loading, or refused with
    /// nothing good before it. What would have passed through one must not pass it by, so treat each
    /// as a call that failed, under its policy.
    pub unready: Vec<Unready>,
}

impl TenantPlugins {
    /// Whether the tenant has no plugin at all.
    pub fn is_empty(&self) -> bool {
        self.resolver.is_none()
            && self.transforms.is_empty()
            && self.classifiers.is_empty()
            && self.signers.is_empty()
            && self.unready.is_empty()
    }
}

/// A plugin of which no version can serve.
#[derive(Debug, Clone)]
pub struct Unready {
    /// Its name.
    pub name: Arc<str>,
    /// What it exports, where that could be found out.
    pub exports: Option<Exports>,
    /// Why it does not serve, in a sentence.
    pub reason: String,
    /// Whether a version is on its way: nothing is wrong with the plugin, it is not ready yet.
    pub loading: bool,
    pub(super) manifest: Manifest,
}

impl Unready {
    /// What becomes of a delivery; [`FailurePolicy::Retry`] as long as its manifest is not known.
    pub fn policy(&self) -> FailurePolicy {
        self.manifest.failure
    }

    /// Whether it would see events of this type; every type as long as its manifest is not known.
    pub fn sees(&self, event_type: &str) -> bool {
        self.manifest.sees(event_type)
    }
}
