//! What the host keeps for one instance: WASI with nothing granted, the memory it may have, its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::{config, log};
use crate::limits::Limits;
use crate::text;

/// Bytes of randomness that a guest may ask for at once: keys and seeds need a few dozen.
const RANDOM_BYTES: u64 = 64 << 10;
/// Characters of one log message.
const LOG_MESSAGE: usize = 1_000;

/// The data of an instance's store.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    config: Arc<BTreeMap<String, String>>,
    pub(crate) budget: Budget,
    pub(crate) log: GuestLog,
}

impl State {
    pub(crate) fn new(
        limits: &Limits,
        config: Arc<BTreeMap<String, String>>,
        log: GuestLog,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        // Standard input is closed; what goes to standard output and error is swallowed, as a panic's
        // text may hold the payload.
        let wasi = WasiCtx::builder()
            .max_random_size(RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Self {
            wasi,
            table,
            config,
            budget: Budget::new(limits),
            log,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.config.get(&key).cloned())
    }

    fn all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self
            .config
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.log.write(level, &message);
        Ok(())
    }
}

/// Counts memory and tables over the whole instance, where wasmtime asks for each one alone.
pub(crate) struct Budget {
    limits: Limits,
    memory: usize,
    elements: usize,
    denied: Option<Denied>,
}

/// What an instance asked for and did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Memory,
    TableElements,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            memory: 0,
            elements: 0,
            denied: None,
        }
    }

    /// Bytes of linear memory that the instance has.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// What was denied since the last call began.
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    pub(crate) fn begin_call(&mut self) {
        self.denied = None;
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.limits.memory_bytes {
            // The guest may go on without: a collector gives up and collects.
            self.denied = Some(Denied::Memory);
            return Ok(false);
        }
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.memory = total;
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .elements
            .saturating_add(desired.saturating_sub(current));
        if total > self.limits.table_elements {
            self.denied = Some(Denied::TableElements);
            return Ok(false);
        }
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.elements = total;
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.tables as usize
    }

    fn memories(&self) -> usize {
        self.limits.memories as usize
    }
}

/// Passes on what a guest logs, within bounds, if the operator wants it.
#[derive(Clone)]
pub(crate) struct GuestLog {
    pub(crate) enabled: bool,
    pub(crate) tenant: Arc<str>,
    pub(crate) plugin: Arc<str>,
    pub(crate) bytes_left: usize,
    pub(crate) lines_left: u32,
}

impl GuestLog {
    /// Allow as much as one call may log.
    pub(crate) fn begin_call(&mut self, limits: &Limits) {
        self.bytes_left = limits.log_bytes;
        self.lines_left = limits.log_lines;
    }

    fn write(&mut self, level: log::Level, message: &str) {
        if !self.enabled || self.lines_left == 0 || self.bytes_left == 0 {
            return;
        }
        let message = text::printable(message, LOG_MESSAGE);
        self.lines_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(message.len());
        let (tenant, plugin) = (&*self.tenant, &*self.plugin);
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(target: "wasmhook::plugin_log", tenant, plugin, "{message}")
            };
        }
        match level {
            log::Level::Trace => emit!(trace),
            log::Level::Debug => emit!(debug),
            log::Level::Info => emit!(info),
            log::Level::Warn => emit!(warn),
            log::Level::Error => emit!(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_of_an_instance() {
        let mut budget = Budget::new(&Limits {
            memory_bytes: 100,
            ..Limits::default()
        });
        assert!(budget.memory_growing(0, 60, None).unwrap());
        assert!(
            !budget.memory_growing(0, 60, None).unwrap(),
            "a second memory shares the sum"
        );
        assert_eq!(budget.denied(), Some(Denied::Memory));
        assert!(budget.memory_growing(60, 100, None).unwrap());
        assert_eq!(budget.memory(), 100);
    }
}
