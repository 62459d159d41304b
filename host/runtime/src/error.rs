//! What can go wrong: at start, while a plugin is loaded, and during a call.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::text::Bytes;
use crate::types::Digest;

/// Why the host of plugins could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The engine refused its settings, most often because the machine grants too little address space.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    /// The cache folder cannot be used as it is.
    #[error("cannot keep compiled plugins in {path}: {reason}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder of former versions cannot be used as it is.
    #[error("cannot keep versions of plugins in {path}: {reason}")]
    Archive {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder of the operator's own plugins cannot be read. Without them nothing may be delivered.
    #[error("the folder of global plugins {path} cannot be read: {reason}")]
    GlobalFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start a thread for plugins: {0}")]
    Thread(std::io::Error),
}

/// Why a plugin's file was refused. Each displays as one sentence that names what to look at; the
/// file itself is named by whoever reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file, or the way to it, cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// The file is a link to a place outside its tenant's plugin folder.
    #[error("the file is a link that leads out of its tenant's folder")]
    OutsideFolder,
    /// The file is larger than the limit.
    #[error("the file is too large: more than {limit} bytes")]
    TooLarge {
        /// The most bytes allowed.
        limit: usize,
    },
    /// The file does not begin as WebAssembly does.
    #[error("the file is not WebAssembly")]
    NotWasm,
    /// The file ends too early, as one does while it is being copied.
    #[error("the file is incomplete: it ends in the middle, after {bytes} bytes")]
    Truncated {
        /// The bytes there are.
        bytes: usize,
    },
    /// A core module was given that does not say which component it would be.
    #[error(
        "the file is a core module without a component's type; build it for wasm32-wasip2, or with bindings generated from the contract"
    )]
    CoreModule,
    /// The component has more parts, or larger ones, than it may have.
    #[error("the component has more than {limit} {what}")]
    Structure {
        /// What there is too much of.
        what: &'static str,
        /// The most allowed.
        limit: usize,
    },
    /// The bytes are not a valid component.
    #[error("the file is not a valid component: {0}")]
    Invalid(String),
    /// The component needs something that plugins are not given.
    #[error("the component imports {import}, which plugins are not granted")]
    ImportNotGranted {
        /// The full name of the import.
        import: String,
    },
    /// The component needs something that its manifest could ask for.
    #[error(
        "the component imports {import}, which its manifest does not ask for; write {key} under [grants]"
    )]
    ImportNotAskedFor {
        /// The full name of the import.
        import: String,
        /// The line to write.
        key: &'static str,
    },
    /// The manifest asks for more than the operator allows.
    #[error(
        "{file} asks for {grant} under [grants], which this host does not allow (plugins.grants)"
    )]
    GrantNotAllowed {
        /// The file's name.
        file: String,
        /// What it asks for.
        grant: String,
    },
    /// A plugin of the operator does what is for a tenant's own.
    #[error("a global plugin {rule}")]
    Global {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The component was built for another version of the contract.
    #[error("the component {verb} {found}, this host serves {served}")]
    ContractVersion {
        /// `exports` or `imports`.
        verb: &'static str,
        /// The name with the version that the component has.
        found: String,
        /// The version of this host.
        served: &'static str,
    },
    /// The component exports nothing that the host could call.
    #[error(
        "the component exports none of transform, resolve, sign and classify of wasmhook:plugin@1.0.0"
    )]
    NoExport,
    /// An exported interface has the right name, and not the right functions or types.
    #[error("the component's {interface} does not have the functions and types of the contract")]
    Signature {
        /// The interface.
        interface: &'static str,
    },
    /// Something that is imported does not exist as the component expects it.
    #[error("the component cannot be linked: {0}")]
    Link(String),
    /// Starting an instance failed.
    #[error("the component does not start: {0}")]
    Start(Fault),
    /// The compiler gave up.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// The compiler was stopped for the processor time it took.
    #[error("compiling took longer than {limit_seconds} s of processor time")]
    CompileCpuTime {
        /// The limit.
        limit_seconds: u64,
    },
    /// The compiler was stopped for the time it took in all, however little of it was its own.
    #[error("compiling took longer than {limit_seconds} s in all")]
    CompileWallTime {
        /// The limit.
        limit_seconds: u64,
    },
    /// The compiler was stopped for the memory it needed.
    #[error("compiling needed more than {} of memory", Bytes(*limit_bytes))]
    CompileMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// What the compiler made does not fit into what an instance may have.
    #[error("the component does not fit: {0}")]
    Unfit(String),
    /// What the compiler made is too large.
    #[error("the compiled code is larger than {}", Bytes(*limit_bytes))]
    CodeSize {
        /// The limit.
        limit_bytes: u64,
    },
    /// There is no compiler, or its result cannot be had, for a reason that is not the component's.
    #[error("the compiler is not available: {0}")]
    Compiler(String),
    /// What the compiler made cannot be written down, as on a full disk.
    #[error("compiled plugins cannot be kept in {folder} (plugins.cache): {reason}", folder = folder.display())]
    Unkept {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The manifest is wrong.
    #[error("{file} is not a valid manifest: {reason}")]
    Manifest {
        /// The file's name.
        file: String,
        /// Which line and key, and what is wrong.
        reason: String,
    },
    /// The tenant has a resolver already.
    #[error(
        "{first} chooses this tenant's endpoints already, and one plugin does; remove one of the two"
    )]
    SecondResolver {
        /// The plugin that resolves.
        first: String,
    },
}

impl LoadError {
    /// Whether the same bytes may be accepted at another time.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreadable(_)
                | Self::Compiler(_)
                | Self::Unkept { .. }
                | Self::Start(Fault::Exhausted | Fault::WallTime { .. })
        )
    }

    /// Whether compiling, or taking up what came of it, ended so, for no reason that passes.
    pub(crate) fn is_of_the_compiler(&self) -> bool {
        matches!(
            self,
            Self::Invalid(_)
                | Self::Compile(_)
                | Self::CompileCpuTime { .. }
                | Self::CompileMemory { .. }
                | Self::CodeSize { .. }
                | Self::Unfit(_)
        )
    }
}

/// A call that gave no answer.
///
/// Displays the plugin and the class of the failure: never what a guest wrote, printed or was given,
/// with the one exception of [`Fault::Guest`], which is the guest's own message to its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The version that failed.
    pub digest: Digest,
    /// Processor time spent for the guest all the same.
    pub cpu: Duration,
    /// Bytes of linear memory that the instance had when it was last seen; zero if it never ran.
    pub memory: usize,
    /// What happened.
    pub fault: Fault,
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}: {}", self.plugin, self.fault)
    }
}

impl std::error::Error for PluginError {}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The guest answered that it failed.
    #[error("failed: {message}")]
    Guest {
        /// Whether the guest says that the same call may succeed later.
        retryable: bool,
        /// The guest's words: printable, at most 200 characters.
        message: String,
    },
    /// The guest used up its processor time.
    #[error("used more than {limit_ms} ms of processor time")]
    CpuTime {
        /// The limit.
        limit_ms: u64,
    },
    /// The guest waited too long in functions of the host.
    #[error("waited longer than {limit_ms} ms in calls to the host")]
    WaitTime {
        /// The limit.
        limit_ms: u64,
    },
    /// The call took too long, whatever it waited for.
    #[error("took longer than {limit_ms} ms")]
    WallTime {
        /// The limit.
        limit_ms: u64,
    },
    /// The guest needed more memory than it may have.
    #[error("needed more than {limit_bytes} bytes of memory")]
    Memory {
        /// The limit.
        limit_bytes: usize,
    },
    /// The guest needed more table elements, tables, memories, instances or handles than it may have.
    #[error("needed more than {limit} {what}")]
    Resources {
        /// What there was not enough of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The guest's calls were nested too deep.
    #[error("exhausted its call stack")]
    Stack,
    /// The guest made a larger body than it may.
    #[error("returned more than {limit_bytes} bytes")]
    OutputTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The guest handed over more bytes at once than it may, in a result or in an argument.
    #[error("handed over more than {limit_bytes} bytes at once")]
    Lifted {
        /// The limit.
        limit_bytes: usize,
    },
    /// The guest called the host too often.
    #[error("made more than {limit} calls to {import}")]
    ImportCalls {
        /// What it called.
        import: &'static str,
        /// The limit.
        limit: u32,
    },
    /// The guest asked for too much randomness.
    #[error("asked for more than {limit_bytes} random bytes")]
    RandomBytes {
        /// The limit.
        limit_bytes: u64,
    },
    /// The guest gave more headers than it may.
    #[error("returned more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The guest chose more endpoints than it may.
    #[error("chose more than {limit} endpoints")]
    TooManyChoices {
        /// The limit.
        limit: usize,
    },
    /// The guest trapped.
    #[error("trapped: {class}")]
    Trap {
        /// The class of the trap.
        class: &'static str,
    },
    /// An exported interface has other functions or types than the contract's.
    #[error("exports {interface} with other functions or types than the contract's")]
    Signature {
        /// The interface.
        interface: &'static str,
    },
    /// The guest answered what the host may not use: an unsafe header, an endpoint that does not exist.
    #[error("gave an answer that was refused: {reason}")]
    Refused {
        /// The rule that was broken.
        reason: String,
    },
    /// The host is running as many calls as it may; nothing was run.
    #[error("was not run, because too many calls are running")]
    Exhausted,
    /// The version does not export what was called: a canary that does not sign, where an endpoint has
    /// its plugin for a signer.
    #[error("does not export {interface}")]
    NotExported {
        /// The interface.
        interface: &'static str,
    },
}

impl Fault {
    /// Whether the guest did what it must not: it trapped, went over a limit, or answered what cannot
    /// be used. What it says of its own accord is no such thing, nor is what the host could not do.
    pub fn is_misconduct(&self) -> bool {
        !matches!(self, Self::Guest { .. } | Self::Exhausted)
    }

    /// A short word for metrics and records: `guest`, `cpu-time`, `trap`, and so on.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Guest { .. } => "guest",
            Self::CpuTime { .. } => "cpu-time",
            Self::WaitTime { .. } => "wait-time",
            Self::WallTime { .. } => "wall-time",
            Self::Memory { .. } => "memory",
            Self::Resources { .. } => "resources",
            Self::Stack => "stack",
            Self::OutputTooLarge { .. } => "output-too-large",
            Self::Lifted { .. } => "lifted",
            Self::ImportCalls { .. } => "import-calls",
            Self::RandomBytes { .. } => "random-bytes",
            Self::TooManyHeaders { .. } => "too-many-headers",
            Self::TooManyChoices { .. } => "too-many-choices",
            Self::Trap { .. } => "trap",
            Self::Signature { .. } => "signature",
            Self::Refused { .. } => "refused",
            Self::Exhausted => "exhausted",
            Self::NotExported { .. } => "not-exported",
        }
    }
}
