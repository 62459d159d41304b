//! The plugins of a tenant, for who calls them.

use std::sync::Arc;

use crate::manifest::{FailurePolicy, Manifest};
use crate::plugin::Plugin;
use crate::types::Exports;

/// The plugins of one tenant, as they were at one moment: the versions that serve. Each is listed for what
/// it exports, and for what the version beside it does. Which of the two is asked about an event says
/// [`Plugin::version_with`].
#[derive(Debug, Default)]
pub struct TenantPlugins {
    /// The plugins that export `resolve`, in the order of their names. One chooses endpoints: see
    /// [`Self::resolver_for`]. A further one is refused as a resolver, with a reason in the status.
    pub resolvers: Vec<Arc<Plugin>>,
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
    /// The plugin that chooses the endpoints of an event: the first by name that exports `resolve` in the
    /// version that the event goes to.
    pub fn resolver_for(&self, event: &str) -> Option<&Arc<Plugin>> {
        let mut all = self.resolvers.iter();
        all.find(|plugin| plugin.version_for(event).exports().resolve)
    }

    /// Whether the tenant has no plugin at all.
    pub fn is_empty(&self) -> bool {
        self.resolvers.is_empty()
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
    /// Stands for all plugins of a folder that could never be read: what is in it may do anything.
    pub(super) fn unknown() -> Self {
        Self {
            name: Arc::from("(plugins)"),
            exports: None,
            reason: "the folder of plugins cannot be read".to_owned(),
            loading: false,
            manifest: Manifest::default(),
        }
    }

    /// What becomes of a delivery; [`FailurePolicy::Retry`] as long as its manifest is not known.
    pub fn policy(&self) -> FailurePolicy {
        self.manifest.failure
    }

    /// Whether it would see events of this type; every type as long as its manifest is not known.
    pub fn sees(&self, event_type: &str) -> bool {
        self.manifest.sees(event_type)
    }
}
