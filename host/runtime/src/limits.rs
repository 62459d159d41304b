//! Every limit on a plugin, with its default and the reason for it.

use std::time::Duration;

use serde::Deserialize;

/// What one plugin may use. The host's own values are the defaults of every plugin and the most
/// that a manifest can ask for.
///
/// Sums to keep in mind when raising them: `memory_bytes` times the number of concurrent calls is
/// the memory that tenants can make the host touch at once, and each component that may run at once
/// reserves `memories` times 4 GiB of address space (not of memory).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Limits {
    /// Bytes over all linear memories of one instance. 64 MiB: a JavaScript or Python guest starts
    /// with 10–30 MiB, a Rust one with 1 MiB.
    pub memory_bytes: usize,
    /// Processor time of the guest in one call, start-up of a fresh instance included, in
    /// milliseconds. Time spent waiting is not counted. 50 ms: a thousand times what a transform of
    /// 1 KiB takes in Rust, thirty times what it takes in Python.
    pub cpu_time_ms: u64,
    /// Time on the wall for one call, waiting included, in milliseconds. 2 s: well below any lease,
    /// and long enough for a guest within its processor time on a busy machine.
    pub wall_time_ms: u64,
    /// Bytes that one call may hand to the host in one go: the body with everything around it.
    /// 1 MiB: four times what receivers usually accept.
    pub output_bytes: usize,
    /// Headers of one request or new endpoint. 64: servers commonly refuse more than a hundred.
    pub headers: usize,
    /// Endpoints that a resolver may choose for one event. 256: each becomes a delivery.
    pub choices: usize,
    /// Bytes of log messages kept from one call; the rest is dropped. 16 KiB: a screen or two.
    pub log_bytes: usize,
    /// Log lines kept from one call; the rest is dropped. 64: as above.
    pub log_lines: u32,
    /// Linear memories of one instance. 4: a component is usually made of one module with one memory,
    /// a composed one of a few.
    pub memories: u32,
    /// Tables of one instance. 16: a module has one, and adapters add small ones.
    pub tables: u32,
    /// Elements over all tables of one instance. 100 000: one per function that is called through a
    /// pointer; Python's runtime has some 20 000.
    pub table_elements: usize,
    /// Core instances of one component. 32: languages' tools make three to six, Python's one for each
    /// native library.
    pub instances: u32,
    /// Resource handles that a guest may hold at once. 1 000: a guest with nothing granted opens the
    /// three standard streams and a clock.
    pub handles: usize,
    /// Bytes of a component's file. 32 MiB: one made from Python has 18 MB.
    pub component_bytes: usize,
    /// Bytes of a manifest's file. 64 KiB: it is written by hand.
    pub manifest_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            cpu_time_ms: 50,
            wall_time_ms: 2_000,
            output_bytes: 1 << 20,
            headers: 64,
            choices: 256,
            log_bytes: 16 << 10,
            log_lines: 64,
            memories: 4,
            tables: 16,
            table_elements: 100_000,
            instances: 32,
            handles: 1_000,
            component_bytes: 32 << 20,
            manifest_bytes: 64 << 10,
        }
    }
}

/// Bytes above [`Limits::output_bytes`] that one call may hand over: record fields, header names and
/// the pointers of lists, all of which the host counts while it copies.
const OUTPUT_OVERHEAD: usize = 64 << 10;

impl Limits {
    /// Processor time of one call.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_millis(self.cpu_time_ms)
    }

    /// Time on the wall of one call.
    pub fn wall_time(&self) -> Duration {
        Duration::from_millis(self.wall_time_ms)
    }

    /// What the host copies from the guest in one crossing before it stops the guest.
    pub(crate) fn copied_bytes(&self) -> usize {
        self.output_bytes.saturating_add(OUTPUT_OVERHEAD)
    }

    /// These limits with a manifest's wishes applied, none of which can raise one.
    pub(crate) fn lowered_by(&self, wished: &LowerLimits) -> Self {
        fn least<T: Ord + Copy>(limit: T, wish: Option<T>) -> T {
            wish.map_or(limit, |wish| limit.min(wish))
        }
        Self {
            memory_bytes: least(self.memory_bytes, wished.memory_bytes),
            cpu_time_ms: least(self.cpu_time_ms, wished.cpu_time_ms),
            wall_time_ms: least(self.wall_time_ms, wished.wall_time_ms),
            output_bytes: least(self.output_bytes, wished.output_bytes),
            choices: least(self.choices, wished.choices),
            log_bytes: least(self.log_bytes, wished.log_bytes),
            log_lines: least(self.log_lines, wished.log_lines),
            ..self.clone()
        }
    }
}

/// What a manifest may ask for under `[limits]`: each at most the host's own value, to which a
/// larger wish is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct LowerLimits {
    /// See [`Limits::memory_bytes`].
    pub memory_bytes: Option<usize>,
    /// See [`Limits::cpu_time_ms`].
    pub cpu_time_ms: Option<u64>,
    /// See [`Limits::wall_time_ms`].
    pub wall_time_ms: Option<u64>,
    /// See [`Limits::output_bytes`].
    pub output_bytes: Option<usize>,
    /// See [`Limits::choices`].
    pub choices: Option<usize>,
    /// See [`Limits::log_bytes`].
    pub log_bytes: Option<usize>,
    /// See [`Limits::log_lines`].
    pub log_lines: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_lowers_a_limit_and_cannot_raise_one() {
        let host = Limits::default();
        let wished = LowerLimits {
            cpu_time_ms: Some(5),
            memory_bytes: Some(usize::MAX),
            ..LowerLimits::default()
        };
        let limits = host.lowered_by(&wished);
        assert_eq!(limits.cpu_time_ms, 5);
        assert_eq!(limits.memory_bytes, host.memory_bytes);
    }
}
