//! Counts what an instance holds and what a call uses, where wasmtime does not or asks for each memory
//! and table alone.

use wasmtime::ResourceLimiter;

use crate::limits::Limits;

/// A group of functions that the host provides, as far as calls to them are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Import {
    Config,
    Log,
    KeyValue,
    Signing,
    HttpClient,
    Cli,
    Clocks,
    Filesystem,
    Io,
    Random,
    Sockets,
}

impl Import {
    const COUNT: usize = 11;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Config => "wasmhook:plugin/config",
            Self::Log => "wasmhook:plugin/log",
            Self::KeyValue => "wasmhook:plugin/key-value",
            Self::Signing => "wasmhook:plugin/signing",
            Self::HttpClient => "wasmhook:plugin/http-client",
            Self::Cli => "wasi:cli",
            Self::Clocks => "wasi:clocks",
            Self::Filesystem => "wasi:filesystem",
            Self::Io => "wasi:io",
            Self::Random => "wasi:random",
            Self::Sockets => "wasi:sockets",
        }
    }
}

/// What an instance asked for and did not get. It may go on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Memory,
    TableElements,
}

/// What a call used too much of, which ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exceeded {
    #[error("too many calls to {}", .0.name())]
    Calls(Import),
    #[error("too many random bytes")]
    Random,
}

/// The counts of one instance.
pub(crate) struct Budget {
    limits: Limits,
    memory: usize,
    elements: usize,
    denied: Option<Denied>,
    calls: [u32; Import::COUNT],
    random: u64,
    /// HTTP requests that were made.
    requests: u32,
    exceeded: Option<Exceeded>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            memory: 0,
            elements: 0,
            denied: None,
            calls: [0; Import::COUNT],
            random: 0,
            requests: 0,
            exceeded: None,
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

    /// What the call has used too much of.
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded
    }

    /// Forget what the call before used; what the instance holds stays.
    pub(crate) fn begin_call(&mut self) {
        self.denied = None;
        self.calls = [0; Import::COUNT];
        self.random = 0;
        self.requests = 0;
        self.exceeded = None;
    }

    /// Note a call to the host. One too many is seen at the clock's next tick, or at the end.
    pub(crate) fn note(&mut self, import: Import) {
        let calls = &mut self.calls[import as usize];
        *calls = calls.saturating_add(1);
        if *calls > self.limits.import_calls {
            self.exceeded.get_or_insert(Exceeded::Calls(import));
        }
    }

    /// Note a call to the host, and end it if it is one too many.
    pub(crate) fn admit(&mut self, import: Import) -> Result<(), Exceeded> {
        self.note(import);
        self.exceeded.map_or(Ok(()), Err)
    }

    /// Count an HTTP request before it is made; whether it may be.
    pub(crate) fn take_request(&mut self) -> bool {
        let may = self.requests < self.limits.http_requests;
        self.requests += u32::from(may);
        may
    }

    /// Count random bytes before they are made.
    pub(crate) fn draw(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.admit(Import::Random)?;
        self.random = self.random.saturating_add(bytes);
        if self.random > self.limits.random_bytes {
            self.exceeded = Some(Exceeded::Random);
            return Err(Exceeded::Random);
        }
        Ok(())
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

    #[test]
    fn calls_are_counted_for_each_import_and_each_call_begins_anew() {
        let mut budget = Budget::new(&Limits {
            import_calls: 2,
            random_bytes: 10,
            ..Limits::default()
        });
        for _ in 0..2 {
            budget.note(Import::Clocks);
            assert_eq!(budget.admit(Import::Log), Ok(()));
        }
        budget.note(Import::Clocks);
        assert_eq!(budget.exceeded(), Some(Exceeded::Calls(Import::Clocks)));
        budget.begin_call();
        assert_eq!(budget.draw(10), Ok(()));
        assert_eq!(budget.draw(1), Err(Exceeded::Random));
        budget.begin_call();
        assert_eq!((budget.exceeded(), budget.draw(10)), (None, Ok(())));
    }
}
