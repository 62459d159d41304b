//! Versions beside the one in the folder: former ones to go back to, and whether a new one is to be tried
//! out first.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::component::Outline;
use crate::folder::{Key, Standing};
use crate::loader::{Found, Loader, Version};
use crate::manifest::Manifest;
use crate::plugin::Plugin;
use crate::types::Digest;
use crate::versions::VersionState;

impl Loader {
    /// Whether a version is to be tried out beside another one, if there is any, rather than serve.
    pub(crate) fn is_tried_out(
        &self,
        key: &Key,
        plugin: &Plugin,
        version: Option<Version>,
    ) -> bool {
        let is_plain = version.is_some_and(|version| version.standing == Standing::Plain);
        is_plain
            && plugin.manifest.rollout.is_some()
            // One that was promoted stays in service.
            && self.archive.with(key, |history| {
                let known = history.of(plugin.digest());
                known.is_none_or(|known| known.state != VersionState::Serving)
            })
    }

    /// The last good version of a plugin, other than this one.
    pub(crate) async fn standby(
        self: &Arc<Self>,
        key: &Key,
        except: Option<Digest>,
    ) -> Option<Arc<Plugin>> {
        let good: Vec<Digest> = self
            .archive
            .with(key, |history| history.good(except).collect());
        for digest in good {
            match self.load_kept(key, digest).await {
                Ok(plugin) => return Some(plugin),
                Err(reason) => {
                    tracing::warn!(tenant = %key.tenant, plugin = %key.name, %digest,
                        "a former version cannot stand in: {reason}");
                }
            }
        }
        None
    }

    /// Load a version from the archive, as it last served.
    async fn load_kept(self: &Arc<Self>, key: &Key, digest: Digest) -> Result<Arc<Plugin>, String> {
        let (loader, wanted) = (Arc::clone(self), key.clone());
        let read = move || -> Result<(Manifest, Found), String> {
            let kept = loader.archive.read(&wanted, digest).map_err(words)?;
            let config = &loader.shared.config;
            let manifest = kept.manifest.as_deref().map_or_else(
                || Ok(Manifest::default()),
                |bytes| Manifest::parse("its manifest", bytes).map_err(words),
            )?;
            loader
                .check_grants(&wanted, &manifest, "its manifest")
                .map_err(words)?;
            let grants = &manifest.grants;
            let most = config.most();
            let outline =
                Outline::read(&kept.component, &config.loading, &most, grants).map_err(words)?;
            let found = loader
                .find(digest, Bytes::from(kept.component), &outline, Some(&wanted))
                .map_err(words)?;
            Ok((manifest, found))
        };
        let (manifest, found) = spawn_blocking(read).await.map_err(words)??;
        let code = match found {
            Found::Code(code) => code,
            Found::Source(source) => {
                let _turn = self.compiles.wait(&key.tenant).await;
                self.compile(source).await.map_err(words)?
            }
        };
        self.start(key, code, manifest).await.map_err(words)
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
