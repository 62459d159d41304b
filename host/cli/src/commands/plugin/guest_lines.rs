//! What guests log while they are tried out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where the runtime passes on what guests log.
const TARGET: &str = "wasmhook::plugin_log";

/// Lines as they come.
#[derive(Clone, Default)]
pub(super) struct GuestLines(Arc<Mutex<Vec<String>>>);

impl GuestLines {
    /// From here on, in this process.
    pub(super) fn capture() -> Self {
        let lines = Self::default();
        // Fails only if something captures already, which nothing does in a command that ends.
        let _ = tracing_subscriber::registry()
            .with(lines.clone())
            .try_init();
        lines
    }

    /// Those since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for GuestLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = event.metadata().level().as_str().to_lowercase();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(format!("{level}: {}", message.0));
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
