//! The other side of [`Compiler::Child`](crate::Compiler): a process that compiles one component,
//! within bounds, and ends.
//!
//! It gets the component on standard input, with what is known of its functions behind it. It writes the
//! compiled code to standard output, which is a file of the host's, and behind that what is to be known of its
//! functions; and it says on standard error why it could not.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use wasmtime::Engine;

use crate::artifact;
use crate::compile;
use crate::engine;
use crate::functions::Functions;
use crate::loading::LoadLimits;

/// Address space of the program itself, over the memory that a compilation may take: its own code and
/// libraries, in an unoptimised build too.
const PROGRAM: u64 = 512 << 20;
/// How much less it wants of a busy processor than the deliveries do: a third of a fair share. With a
/// tenth, at 10, a Python guest took minutes on a machine with ten processes that wanted to run.
const NICENESS: i32 = 5;

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    memory_bytes: u64,
    cpu_seconds: u64,
    code_bytes: u64,
    /// Of what arrives, the bytes that are the component. Behind it comes what is known of its functions.
    component_bytes: usize,
}

/// Why there is no compiled code.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The bytes are no valid component.
    Invalid(String),
    /// The compiler gave up.
    Failed(String),
    /// There was too little memory.
    Memory,
    /// The compiled code could not be written down.
    Unwritten(String),
}

impl Job {
    pub(crate) fn of(limits: &LoadLimits, component_bytes: usize) -> Self {
        Self {
            memory_bytes: limits.compile_memory_bytes,
            cpu_seconds: limits.compile_cpu_seconds,
            code_bytes: limits.code_bytes,
            component_bytes,
        }
    }

    pub(crate) fn to_argument(&self) -> String {
        serde_json::to_string(self).expect("numbers can be written as JSON")
    }

    /// Set the bounds, on this process, for good.
    fn bind(&self) -> rustix::io::Result<()> {
        // A crash must not leave what it worked on behind.
        bound(Resource::Core, 0, 0)?;
        bound(Resource::Data, self.memory_bytes, 0)?;
        bound(Resource::As, self.memory_bytes.saturating_add(PROGRAM), 0)?;
        // What is behind the code is at least the mark of its end.
        let file_bytes = self.code_bytes.saturating_add(artifact::TRAILER as u64);
        bound(Resource::Fsize, file_bytes, 0)?;
        // The first is a signal that tells what it is for; the second cannot be caught.
        bound(Resource::Cpu, self.cpu_seconds, 1)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::process::Signal;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        rustix::process::nice(NICENESS).map(drop)
    }

    fn run(&self) -> Result<(), Refusal> {
        let unwritten = |error: io::Error| Refusal::Unwritten(error.to_string());
        let failed = |error: String| Refusal::Failed(error);
        self.bind()
            .map_err(|error| failed(format!("its bounds cannot be set: {error}")))?;
        let mut arriving = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut arriving)
            .map_err(|error| failed(format!("the component does not arrive: {error}")))?;
        let mut bytes = Bytes::from(arriving);
        if bytes.len() < self.component_bytes {
            return Err(failed("the component does not arrive".to_owned()));
        }
        let functions = bytes.split_off(self.component_bytes);
        let functions = Arc::new(Functions::known(functions));
        let mut config = engine::code_config();
        let engine = config
            .enable_incremental_compilation(Arc::clone(&functions) as _)
            .and_then(|config| Engine::new(config))
            .map_err(|error| failed(format!("{error:#}")))?;
        let code = compile::precompile(&engine, &bytes)?;
        drop(bytes);
        let stdout = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(unwritten)?;
        compile::write(&File::from(stdout), &code, &functions, self.code_bytes).map_err(unwritten)
    }
}

/// Bound a resource, the hard bound `more` above the soft one, and neither above what there is.
fn bound(resource: Resource, most: u64, more: u64) -> rustix::io::Result<()> {
    let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let bounds = Rlimit {
        current: Some(most.min(ceiling)),
        maximum: Some(most.saturating_add(more).min(ceiling)),
    };
    setrlimit(resource, bounds)
}

impl Refusal {
    pub(crate) fn to_line(&self) -> String {
        serde_json::to_string(self).expect("texts can be written as JSON")
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// Compile one component as a host asked, in a process started for it: `argument` is the last one
/// that the host gave. Bounds this process for good and replaces its panic hook; return the answer
/// from `main`, and do nothing else before it, threads least of all.
pub fn run_compiler(argument: &str) -> ExitCode {
    let Ok(job) = serde_json::from_str::<Job>(argument) else {
        say(&Refusal::Failed(
            "the compiler was asked in a way it does not know".to_owned(),
        ));
        return ExitCode::FAILURE;
    };
    std::panic::set_hook(Box::new(|panic| {
        // Not its message, which may quote the component at any length.
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        say(&Refusal::Failed(format!(
            "the compiler panicked at {place}"
        )));
    }));
    match job.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            say(&refusal);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "it is how the child answers")]
fn say(refusal: &Refusal) {
    eprintln!("{}", refusal.to_line());
}
