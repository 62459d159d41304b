//! The operator's own plugins, around those of every tenant.

use std::sync::Arc;

use super::{TenantPlugins, Unready};
use crate::folder::is_before;
use crate::plugin::Plugin;

/// The plugins of the operator, as they were at one moment: transforms that run for every tenant.
#[derive(Debug, Default)]
pub struct GlobalPlugins {
    before: OwnStage,
    after: OwnStage,
}

#[derive(Debug, Default)]
struct OwnStage {
    transforms: Vec<Arc<Plugin>>,
    unready: Vec<Unready>,
}

/// Transforms of one owner, which run one after the other. What one of them cannot do is under its
/// failure policy within the stage: `deliver-original` gives on what the stage was given.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// In the order of their names.
    pub transforms: &'a [Arc<Plugin>],
    /// See [`TenantPlugins::unready`].
    pub unready: &'a [Unready],
}

impl Stage<'_> {
    /// Whether nothing can happen to an event here.
    pub fn is_empty(&self) -> bool {
        self.transforms.is_empty() && self.unready.is_empty()
    }
}

impl GlobalPlugins {
    pub(super) fn of(plugins: TenantPlugins) -> Self {
        let mut all = Self::default();
        for plugin in plugins.transforms {
            all.stage(plugin.name()).transforms.push(plugin);
        }
        for unready in plugins.unready {
            all.stage(&unready.name).unready.push(unready);
        }
        all
    }

    fn stage(&mut self, name: &str) -> &mut OwnStage {
        if is_before(name) {
            &mut self.before
        } else {
            &mut self.after
        }
    }

    /// What an event of a tenant passes: the operator's plugins before, the tenant's own, the operator's
    /// after.
    pub fn around<'a>(&'a self, own: &'a TenantPlugins) -> [Stage<'a>; 3] {
        let own = Stage {
            transforms: &own.transforms,
            unready: &own.unready,
        };
        [self.before.borrow(), own, self.after.borrow()]
    }
}

impl OwnStage {
    fn borrow(&self) -> Stage<'_> {
        Stage {
            transforms: &self.transforms,
            unready: &self.unready,
        }
    }
}
