//! Takes what a guest logs or prints, within the bounds of one call, to its tenant's log.

use std::sync::Arc;

use crate::bindings::log::Level;
use crate::limits::Limits;
use crate::tenant_log::TenantLog;
use crate::text;

/// Characters of one log message.
const MESSAGE: usize = 1_000;

/// The log of one instance.
pub(crate) struct GuestLog {
    /// Where lines go.
    kept: Option<Arc<TenantLog>>,
    /// Whether they also go to the host's own log.
    copied: bool,
    tenant: Arc<str>,
    plugin: Arc<str>,
    bytes_left: usize,
    lines_left: u32,
    /// Lines of this call that were not kept.
    dropped: u32,
}

impl GuestLog {
    pub(crate) fn new(
        kept: Option<Arc<TenantLog>>,
        copied: bool,
        tenant: Arc<str>,
        plugin: Arc<str>,
    ) -> Self {
        Self {
            kept,
            copied,
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
        if self.kept.is_none() && !self.copied {
            return;
        }
        if self.lines_left == 0 || self.bytes_left == 0 {
            self.note_dropped();
            return;
        }
        let message = text::printable(message, MESSAGE.min(self.bytes_left));
        self.lines_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(message.len());
        self.pass_on(level, message);
    }

    /// Something could not be kept.
    pub(crate) fn note_dropped(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Say what is missing from the log of the call that ended.
    pub(crate) fn end_call(&mut self) {
        if self.dropped > 0 {
            let words = format!("{} more lines of this call are dropped", self.dropped);
            self.pass_on(Level::Warn, words);
            self.dropped = 0;
        }
    }

    fn pass_on(&self, level: Level, message: String) {
        if self.copied {
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
        if let Some(log) = &self.kept {
            log.write(&self.tenant, &self.plugin, name(level), message);
        }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
