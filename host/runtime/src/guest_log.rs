//! Passes on what a guest logs, within bounds, if the operator wants it.

use std::sync::Arc;

use crate::bindings::log::Level;
use crate::limits::Limits;
use crate::text;

/// Characters of one log message.
const MESSAGE: usize = 1_000;

/// The log of one instance.
pub(crate) struct GuestLog {
    enabled: bool,
    tenant: Arc<str>,
    plugin: Arc<str>,
    bytes_left: usize,
    lines_left: u32,
    /// Lines of this call that were not kept.
    dropped: u32,
}

impl GuestLog {
    pub(crate) fn new(enabled: bool, tenant: Arc<str>, plugin: Arc<str>) -> Self {
        Self {
            enabled,
            tenant,
            plugin,
            bytes_left: 0,
            lines_left: 0,
            dropped: 0,
        }
    }

    /// Allow as much as one call may log.
    pub(crate) fn begin_call(&mut self, limits: &Limits) {
        self.bytes_left = limits.log_bytes;
        self.lines_left = limits.log_lines;
        self.dropped = 0;
    }

    pub(crate) fn write(&mut self, level: Level, message: &str) {
        if !self.enabled {
            return;
        }
        if self.lines_left == 0 || self.bytes_left == 0 {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let message = text::printable(message, MESSAGE.min(self.bytes_left));
        self.lines_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(message.len());
        let (tenant, plugin) = (&*self.tenant, &*self.plugin);
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(target: "wasmhook::plugin_log", tenant, plugin, "{message}")
            };
        }
        match level {
            Level::Trace => emit!(trace),
            Level::Debug => emit!(debug),
            Level::Info => emit!(info),
            Level::Warn => emit!(warn),
            Level::Error => emit!(error),
        }
    }

    /// Say what is missing from the log of the call that ended.
    pub(crate) fn end_call(&mut self) {
        if self.dropped > 0 {
            let (tenant, plugin) = (&*self.tenant, &*self.plugin);
            tracing::warn!(target: "wasmhook::plugin_log", tenant, plugin,
                "{} more lines of this call are dropped", self.dropped);
            self.dropped = 0;
        }
    }
}
