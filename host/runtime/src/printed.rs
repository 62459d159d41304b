//! What a guest prints: it goes where the guest logs, line by line and within the same bounds. Who writes a plugin
//! prints to see what it does, and a panic's words or a traceback are all that tells why it trapped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{OutputStream, StreamResult};

use crate::bindings::log::Level;
use crate::guest_log::GuestLog;

/// Bytes that a guest may write at once, as other streams of WASI let it.
const AT_ONCE: usize = 64 << 10;

/// What was printed and is not in the log yet.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Bytes that may still be printed in this call.
    room: usize,
    /// Whether there was more.
    cut: bool,
}

/// Standard output or standard error of an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Printed(Arc<Mutex<Text>>);

impl Printed {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allow so many bytes.
    pub(crate) fn begin_call(&self, bytes: usize) {
        *self.text() = Text {
            room: bytes,
            ..Text::default()
        };
    }

    /// Put whole lines into the log; when the call has `ended`, what is left too.
    pub(crate) fn drain(&self, ended: bool, level: Level, log: &mut GuestLog) {
        let mut text = self.text();
        let end = if ended {
            text.bytes.len()
        } else {
            let last = text.bytes.iter().rposition(|byte| *byte == b'\n');
            last.map_or(0, |last| last + 1)
        };
        if end > 0 {
            let rest = text.bytes.split_off(end);
            let whole = std::mem::replace(&mut text.bytes, rest);
            let lines = whole.split(|byte| *byte == b'\n');
            for line in lines.map(<[u8]>::trim_ascii_end) {
                if !line.is_empty() {
                    log.write(level, &String::from_utf8_lossy(line));
                }
            }
        }
        if ended && std::mem::take(&mut text.cut) {
            log.note_dropped();
        }
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    // Asked for by WASI 0.3 only, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut text = self.text();
        let kept = bytes.len().min(text.room);
        text.room -= kept;
        text.cut |= kept < bytes.len();
        text.bytes.extend_from_slice(&bytes[..kept]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(AT_ONCE)
    }
}
