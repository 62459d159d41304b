//! What is tried out: events from a file, and a plugin opened for the tenants in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use wasmhook_core::{Event, EventDraft, PluginName, TenantId};
use wasmhook_runtime::{Plugin, PluginHost, Reuse};

use super::{Compiling, must_exist, refused};
use crate::config::Config;
use crate::exit::{Coded, Exit};

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
        let event = EventDraft::from_json_line(&line)
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

/// The name that a plugin in this file has in a tenant's folder, if it can have one.
pub(super) fn name(file: &Path) -> Option<PluginName> {
    PluginName::new(file.file_stem()?.to_str()?).ok()
}
