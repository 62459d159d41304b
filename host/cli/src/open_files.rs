//! How many files the process may have open: one for each connection, and one for each plugin whose code
//! is mapped.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Take as many as the system gives to whoever asks. What it gives without being asked is 1024 as a rule,
/// for the sake of programs that wait with `select`, and too few for a thousand plugins.
pub(crate) fn allow_all() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!("the limit on open files stays at {current:?}: {error}");
    }
}

/// How many may be open once [`allow_all`] was called; `None` for any number.
pub(crate) fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}
