//! What plugins are tried out with: events from a file, and the endpoints they go to.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use wasmhook_core::{Endpoint, EndpointId, EndpointUrl, Event, EventDraft, TenantId};
use wasmhook_runtime::{EndpointView, Plugin, PluginHost, Reuse};
use wasmhook_tenants::Tenants;

use super::{Compiling, must_exist, refused};
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::host;

/// Events taken from one file: they are held in memory.
const MOST_EVENTS: usize = 100_000;

/// Reads events in the form of `event push`, one a line.
pub(super) fn events(config: &Config, file: &Path) -> anyhow::Result<Vec<Event>> {
    must_exist(file)?;
    let cannot = || format!("cannot read {}", file.display());
    let lines = BufReader::new(File::open(file).with_context(cannot)?).split(b'\n');
    let now = jiff::Timestamp::now();
    let mut events = Vec::new();
    for (index, line) in lines.enumerate() {
        let line = line.with_context(cannot)?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if events.len() == MOST_EVENTS {
            return Err(Coded::new(
                Exit::Refused,
                format!("{} holds more than {MOST_EVENTS} events", file.display()),
            ));
        }
        let event = EventDraft::from_json(&line)
            .and_then(|draft| draft.accept(now, config.intake.max_payload_bytes))
            .map_err(|error| {
                Coded::new(
                    Exit::Refused,
                    format!("{} line {}: {error}", file.display(), index + 1),
                )
            })?;
        events.push(event);
    }
    if events.is_empty() {
        return Err(Coded::new(
            Exit::Refused,
            format!("{} holds no event", file.display()),
        ));
    }
    Ok(events)
}

/// An endpoint named on the command line: `ID=URL`, or a URL for one called `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    id: EndpointId,
    url: EndpointUrl,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An id has no colon, and what precedes the first `=` of a URL does.
        let (id, url) = match text.split_once('=') {
            Some((id, url)) if !id.contains(':') => (id, url),
            _ => ("main", text),
        };
        Ok(Self {
            id: EndpointId::new(id).map_err(|error| error.to_string())?,
            url: EndpointUrl::new(url).map_err(|error| error.to_string())?,
        })
    }
}

/// Where events go.
pub(super) enum Endpoints {
    /// To these.
    Named(Vec<Named>),
    /// To those of the tenants folder that subscribe; where there are none, to the first of [`example`].
    Subscribed(Tenants, Vec<Named>),
}

/// What stands for the endpoints of who has none.
fn example() -> Vec<Named> {
    "https://example.com/hooks".parse().into_iter().collect()
}

impl Endpoints {
    /// Those named, otherwise those of the configuration's tenants, otherwise an example.
    pub(super) fn new(config: &Config, named: Vec<Named>) -> anyhow::Result<Self> {
        if !named.is_empty() {
            return Ok(Self::Named(named));
        }
        if config.file.is_some() && config.path(&config.tenants.folder).is_dir() {
            return Ok(Self::Subscribed(host::tenants(config)?, example()));
        }
        Ok(Self::Named(example()))
    }

    /// Calls `with` with what an event goes to.
    pub(super) fn of(&self, event: &Event) -> Receivers<'_> {
        match self {
            Self::Named(named) => Receivers::Named(named),
            Self::Subscribed(tenants, example) => {
                let subscribed: Vec<_> = tenants
                    .endpoints(&event.tenant_id)
                    .iter()
                    .filter(|endpoint| endpoint.matches(event))
                    .cloned()
                    .collect();
                if subscribed.is_empty() {
                    Receivers::Named(example)
                } else {
                    Receivers::Subscribed(subscribed)
                }
            }
        }
    }
}

/// The endpoints of one event.
pub(super) enum Receivers<'a> {
    Named(&'a [Named]),
    Subscribed(Vec<Arc<Endpoint>>),
}

impl Receivers<'_> {
    /// As plugins see them.
    pub(super) fn views(&self) -> Vec<EndpointView<'_>> {
        match self {
            Self::Named(named) => named
                .iter()
                .map(|endpoint| EndpointView {
                    id: endpoint.id.as_str(),
                    url: endpoint.url.as_url().as_str(),
                })
                .collect(),
            Self::Subscribed(endpoints) => endpoints
                .iter()
                .map(|endpoint| wasmhook_engine::resolve::endpoint_view(endpoint))
                .collect(),
        }
    }
}

/// One version of a plugin, opened for each tenant apart, as the host keeps tenants apart.
pub(super) struct Version<'a> {
    host: &'a PluginHost,
    file: PathBuf,
    reuse: Option<Reuse>,
    of_tenants: HashMap<TenantId, Arc<Plugin>>,
}

impl<'a> Version<'a> {
    pub(super) fn new(
        host: &'a PluginHost,
        file: &Path,
        reuse: Option<Reuse>,
    ) -> anyhow::Result<Self> {
        must_exist(file)?;
        Ok(Self {
            host,
            file: file.to_owned(),
            reuse,
            of_tenants: HashMap::new(),
        })
    }

    pub(super) async fn of(&mut self, tenant: &TenantId) -> anyhow::Result<Arc<Plugin>> {
        if let Some(plugin) = self.of_tenants.get(tenant) {
            return Ok(Arc::clone(plugin));
        }
        let _shown = Compiling::show(&self.file);
        let plugin = self
            .host
            .open(&self.file, tenant.as_str(), self.reuse)
            .await
            .map_err(|error| refused(&self.file, &error))?;
        self.of_tenants.insert(tenant.clone(), Arc::clone(&plugin));
        Ok(plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_with_its_id_or_is_main() {
        let named = |text: &str| {
            text.parse::<Named>()
                .map(|named| (named.id.to_string(), named.url.as_url().to_string()))
        };
        assert_eq!(
            named("eu=https://example.com/h").unwrap(),
            ("eu".to_owned(), "https://example.com/h".to_owned())
        );
        assert_eq!(
            named("https://example.com/h?a=b").unwrap(),
            ("main".to_owned(), "https://example.com/h?a=b".to_owned())
        );
        assert!(named("eu=nowhere").is_err());
        assert_eq!(example().len(), 1);
    }
}
