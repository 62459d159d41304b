//! What the host keeps for one instance, and the functions of the contract that it provides.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::{config, log};
use crate::budget::{Budget, Import};
use crate::guest_log::GuestLog;
use crate::imports::Provided;
use crate::imports::signing::Signer;
use crate::limits::Limits;
use crate::printed::Printed;

/// The data of an instance's store.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    config: Arc<BTreeMap<String, String>>,
    pub(crate) budget: Budget,
    pub(crate) limits: Limits,
    pub(crate) provided: Provided,
    /// The keys of the call that runs, if it is one that signs.
    pub(crate) signer: Option<Arc<dyn Signer>>,
    log: GuestLog,
    /// What the guest prints.
    out: Printed,
    err: Printed,
}

impl State {
    pub(crate) fn new(
        limits: &Limits,
        config: Arc<BTreeMap<String, String>>,
        log: GuestLog,
        provided: Provided,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        // Standard input is closed.
        let (out, err) = (Printed::default(), Printed::default());
        let wasi = WasiCtx::builder()
            .stdout(out.clone())
            .stderr(err.clone())
            .max_random_size(limits.random_bytes)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Self {
            wasi,
            table,
            config,
            budget: Budget::new(limits),
            limits: limits.clone(),
            provided,
            signer: None,
            log,
            out,
            err,
        }
    }

    /// Make ready for a call.
    pub(crate) fn begin_call(&mut self, limits: &Limits) {
        self.budget.begin_call();
        self.log.begin_call(limits);
        self.out.begin_call(limits.log_bytes);
        self.err.begin_call(limits.log_bytes);
    }

    /// End the log of a call.
    pub(crate) fn end_call(&mut self) {
        self.log_printed(true);
        self.log.end_call();
    }

    fn log_printed(&mut self, ended: bool) {
        self.out.drain(ended, log::Level::Info, &mut self.log);
        self.err.drain(ended, log::Level::Warn, &mut self.log);
    }

    /// Resources that the host holds for the guest.
    pub(crate) fn handles(&mut self) -> usize {
        self.table.iter_mut().count()
    }
}

/// A call that waited too long is dropped half-way, and what it printed until then tells what it waited for.
impl Drop for State {
    fn drop(&mut self) {
        self.end_call();
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
        self.budget.admit(Import::Config)?;
        Ok(self.config.get(&key).cloned())
    }

    fn all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.budget.admit(Import::Config)?;
        Ok(self
            .config
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.budget.admit(Import::Log)?;
        self.log_printed(false);
        self.log.write(level, &message);
        Ok(())
    }
}
