//! Exit codes, and the errors that choose them.

use std::fmt;
use std::process::ExitCode;

use wasmhook_store::StoreError;

/// How a command ended. The numbers are documented in `wasmhook --help` and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line is wrong, beyond what clap, which ends with the same number, can see.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// The store or the host cannot be reached.
    Unavailable = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// An event, a plugin or a replay was refused.
    Refused = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code it asks for.
#[derive(Debug)]
pub(crate) struct Coded {
    exit: Exit,
    words: String,
}

impl Coded {
    #[expect(
        clippy::new_ret_no_self,
        reason = "it is only ever raised as an error of any kind"
    )]
    pub(crate) fn new(exit: Exit, words: impl Into<String>) -> anyhow::Error {
        Self {
            exit,
            words: words.into(),
        }
        .into()
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Coded {}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(coded) = cause.downcast_ref::<Coded>() {
            return coded.exit;
        }
        if let Some(store) = cause.downcast_ref::<StoreError>() {
            return match store {
                StoreError::Unavailable { .. }
                | StoreError::NotReplicated { .. }
                | StoreError::InUse(_) => Exit::Unavailable,
                StoreError::NotFound => Exit::NotFound,
                StoreError::NotFinished(_) | StoreError::NotBlocking(_) => Exit::Refused,
                StoreError::Configuration(_) | StoreError::Path { .. } => Exit::Configuration,
                _ => Exit::Failure,
            };
        }
    }
    Exit::Failure
}
