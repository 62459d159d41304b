//! What bounds a component on its way from a file to something that can be called.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::limits::above_zero;

/// What loading one component may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadLimits {
    /// Bytes of a component's file. 32 MiB: one made from Python has 18 MB.
    #[serde(deserialize_with = "above_zero")]
    pub component_bytes: usize,
    /// Bytes of a manifest's file. 64 KiB: it is written by hand.
    #[serde(deserialize_with = "above_zero")]
    pub manifest_bytes: usize,
    /// Functions over all modules of a component. 100 000: Python's runtime has about 20 000.
    #[serde(deserialize_with = "above_zero")]
    pub functions: usize,
    /// Bytes of one function's body. 1 MiB: the compiler's time grows faster than this size; the
    /// loop of Python's interpreter, the largest in common use, has a tenth of it.
    #[serde(deserialize_with = "above_zero")]
    pub function_bytes: usize,
    /// Core modules of a component. 64: as many as Python has native libraries, several times over.
    #[serde(deserialize_with = "above_zero")]
    pub modules: usize,
    /// How deep components may be nested in one another. 8: composing adds one or two.
    pub nesting: usize,
    /// Memory of the compiler, in bytes. 1 GiB: Python's runtime takes a third of it.
    #[serde(deserialize_with = "above_zero")]
    pub compile_memory_bytes: u64,
    /// Processor time of the compiler, in seconds. 60: Python's runtime takes 7 on an idle machine.
    #[serde(deserialize_with = "above_zero")]
    pub compile_cpu_seconds: u64,
    /// Time on the wall for the compiler, in seconds. 600: it has a lower priority than deliveries, so a
    /// busy machine may keep it waiting.
    #[serde(deserialize_with = "above_zero")]
    pub compile_wall_seconds: u64,
    /// Bytes of compiled code. 256 MiB: Python's runtime becomes 35 MB.
    #[serde(deserialize_with = "above_zero")]
    pub code_bytes: u64,
    /// Components compiled at once, each with `compile_memory_bytes` of its own. 2: a tenant has one at
    /// a time, so one whose component takes as long as it may leaves the other place to the rest.
    #[serde(deserialize_with = "above_zero")]
    pub jobs: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            component_bytes: 32 << 20,
            manifest_bytes: 64 << 10,
            functions: 100_000,
            function_bytes: 1 << 20,
            modules: 64,
            nesting: 8,
            compile_memory_bytes: 1 << 30,
            compile_cpu_seconds: 60,
            compile_wall_seconds: 600,
            code_bytes: 256 << 20,
            jobs: 2,
        }
    }
}

impl LoadLimits {
    pub(crate) fn compile_wall(&self) -> Duration {
        Duration::from_secs(self.compile_wall_seconds)
    }
}

/// Where components are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// On a thread of this process, which a hostile component can occupy for long and whose memory it
    /// can use up: for tests, and for components that are known.
    InProcess,
    /// In a process of its own for each component, with bounds on time and memory that the operating
    /// system enforces, a lower priority, and none of this process's environment and files.
    Child {
        /// The program: one that hands its last argument to
        /// [`run_compiler`](crate::run_compiler), such as this crate's `wasmhook-compile`.
        program: PathBuf,
        /// Arguments before that one.
        arguments: Vec<OsString>,
        /// All of its environment, such as settings of the program's allocator.
        environment: Vec<(OsString, OsString)>,
    },
}
