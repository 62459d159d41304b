//! From the bytes of a component to compiled code in a file, in this process or in a child of it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wasmtime::Engine;

use crate::adapt;
use crate::artifact;
use crate::child::{Job, Refusal};
use crate::error::LoadError;
use crate::functions::{self, Functions};
use crate::loading::{Compiler, LoadLimits};
use crate::text;

/// Bytes read of what a child says.
const SAID: u64 = 64 << 10;
/// Characters of a compiler's sentence: it may quote names that a component chose.
const SENTENCE: usize = 500;

/// Compile a component, or a core module that embeds one's type, into an empty file: the code, and behind it
/// what is to be kept of its functions. `known` is what was kept of the version before, and `unkept` says what it
/// means that the file cannot be written.
pub(crate) async fn compile(
    compiler: &Compiler,
    engine: &Engine,
    limits: &LoadLimits,
    bytes: Bytes,
    known: Bytes,
    into: File,
    unkept: impl Fn(String) -> LoadError,
) -> Result<(), LoadError> {
    let told = |ended: Ended| match ended {
        Ended::Refused(error) => error,
        Ended::Unwritten(reason) => unkept(reason),
    };
    match compiler {
        Compiler::InProcess => {
            let (engine, most) = (engine.clone(), limits.code_bytes);
            let working = spawn_blocking(move || {
                let code = precompile(&engine, &bytes)?;
                // An engine that runs code as well looks nothing up.
                write(&into, &code, &Functions::default(), most)
                    .map_err(|error| Refusal::Unwritten(error.to_string()))
            });
            match working.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(refusal)) => Err(told(refused(refusal, limits))),
                Err(error) => Err(LoadError::Compile(format!("the compiler failed ({error})"))),
            }
        }
        Compiler::Child {
            program,
            arguments,
            environment,
        } => {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .arg(Job::of(limits, bytes.len()).to_argument())
                // The environment may hold secrets, and a compiler needs no folder.
                .env_clear()
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::from(into))
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let child = command.spawn().map_err(|error| {
                LoadError::Compiler(format!("{} cannot be started: {error}", program.display()))
            })?;
            // Dropping the child, at the deadline or when no one waits any more, kills it.
            match timeout(limits.compile_wall(), talk(child, [bytes, known])).await {
                Ok(Ok((status, said))) => judge(status, &said, limits).map_err(told),
                Ok(Err(error)) => Err(LoadError::Compiler(error.to_string())),
                Err(_) => Err(LoadError::CompileWallTime {
                    limit_seconds: limits.compile_wall_seconds,
                }),
            }
        }
    }
}

/// The compiled form of a component, or of a core module that is made into one first.
pub(crate) fn precompile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let component = adapt::component(bytes).map_err(Refusal::Invalid)?;
    engine.precompile_component(&component).map_err(|error| {
        let text = format!("{error:#}");
        // Function bodies are read as they are compiled, and what is wrong in one has no public type.
        if error.is::<wasmparser::BinaryReaderError>() || text.contains("Invalid input WebAssembly")
        {
            Refusal::Invalid(text)
        } else {
            Refusal::Failed(text)
        }
    })
}

/// Write compiled code into an empty file, and behind it what is to be kept of its functions, as far as all of
/// it is no more than `most` bytes.
pub(crate) fn write(
    file: &File,
    code: &[u8],
    functions: &Functions,
    most: u64,
) -> std::io::Result<()> {
    artifact::write(file, code)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let room = most.saturating_sub(code.len() + artifact::TRAILER);
    artifact::put(file, &functions.to_keep(room.min(functions::MOST)))
}

/// Give the child the bytes and wait for its end.
async fn talk(mut child: Child, parts: [Bytes; 2]) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            for bytes in parts {
                // A child that ends before it has read everything says why itself.
                let _ = stdin.write_all(&bytes).await;
            }
        }
    };
    let listen = async {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            // What is past the bound stays unread, and the child fails as it writes it.
            stderr.take(SAID).read_to_end(&mut said).await?;
        }
        Ok::<_, std::io::Error>(said)
    };
    let ((), said) = tokio::join!(give, listen);
    let said = String::from_utf8_lossy(&said?).into_owned();
    Ok((child.wait().await?, said))
}

/// Why a compiler ended without a result.
enum Ended {
    Refused(LoadError),
    /// For a reason that is not the component's.
    Unwritten(String),
}

/// What a child's end means.
fn judge(status: ExitStatus, said: &str, limits: &LoadLimits) -> Result<(), Ended> {
    if status.success() {
        return Ok(());
    }
    if let Some(refusal) = said.lines().rev().find_map(Refusal::read) {
        return Err(refused(refusal, limits));
    }
    // The standard library's own words, before it aborts.
    if said.contains("memory allocation of") {
        return Err(refused(Refusal::Memory, limits));
    }
    if said.contains("overflowed its stack") {
        let reason = "its parts are nested too deep for the compiler";
        return Err(Ended::Refused(LoadError::Compile(reason.to_owned())));
    }
    let signal = status.signal().unwrap_or_default();
    Err(Ended::Refused(if signal == Signal::XCPU.as_raw() {
        LoadError::CompileCpuTime {
            limit_seconds: limits.compile_cpu_seconds,
        }
    } else if signal == Signal::XFSZ.as_raw() {
        LoadError::CodeSize {
            limit_bytes: limits.code_bytes,
        }
    } else {
        LoadError::Compile(format!("the compiler ended with {status}"))
    }))
}

fn refused(refusal: Refusal, limits: &LoadLimits) -> Ended {
    Ended::Refused(match refusal {
        Refusal::Invalid(text) => LoadError::Invalid(text::clause(&text, SENTENCE)),
        Refusal::Failed(text) => LoadError::Compile(text::clause(&text, SENTENCE)),
        Refusal::Unwritten(text) => return Ended::Unwritten(text),
        Refusal::Memory => LoadError::CompileMemory {
            limit_bytes: limits.compile_memory_bytes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(status: ExitStatus, said: &str) -> String {
        match judge(status, said, &LoadLimits::default()) {
            Err(Ended::Refused(error)) => error.to_string(),
            _ => panic!("it was not refused"),
        }
    }

    #[test]
    fn a_childs_end_is_told_as_the_limit_it_met() {
        let killed_by = |signal: Signal| ExitStatus::from_raw(signal.as_raw());
        assert_eq!(
            sentence(killed_by(Signal::XCPU), ""),
            "compiling took longer than 60 s of processor time"
        );
        assert_eq!(
            sentence(killed_by(Signal::XFSZ), ""),
            "the compiled code is larger than 256 MiB"
        );
        assert_eq!(
            sentence(
                killed_by(Signal::ABORT),
                "memory allocation of 77 bytes failed\n"
            ),
            "compiling needed more than 1 GiB of memory"
        );
        assert_eq!(
            sentence(killed_by(Signal::SEGV), ""),
            "the component cannot be compiled: the compiler ended with signal: 11 (SIGSEGV) (core dumped)"
                .trim_end_matches(" (core dumped)")
        );
        let said = format!(
            "noise\n{}\n",
            Refusal::Invalid("at\u{1b} 7".to_owned()).to_line()
        );
        assert_eq!(
            sentence(ExitStatus::from_raw(1 << 8), &said),
            "the file is not a valid component: at  7"
        );
    }
}
