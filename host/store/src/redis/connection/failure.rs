//! What errors of the server, and of reaching it, mean to who asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::StoreError;

/// The longest text of a server's error that is passed on.
const MAX_REASON: usize = 300;

/// Whether the same request may work later, with nothing changed by who asks.
pub(super) fn passes(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    if is_about_certificates(error) {
        return false;
    }
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(
            error.kind(),
            ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(
                    BusyLoading | MasterDown | ClusterDown | TryAgain | ReadOnly | Moved | Ask
                )
        )
        || matches!(
            error.code(),
            Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY" | "UNBLOCKED")
        )
}

/// Whether the server may not be the master any more.
pub(super) fn casts_doubt(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ReadOnly | MasterDown | BusyLoading)
        )
        || error.code() == Some("UNBLOCKED")
}

/// Whether TLS was refused by one side: no waiting mends a certificate.
fn is_about_certificates(error: &RedisError) -> bool {
    error.is_io_error() && {
        let text = error.to_string();
        ["certificate", "Certificate", "fatal alert"]
            .iter()
            .any(|word| text.contains(word))
    }
}

/// Whether the user may not do this.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    // What a function is refused is told as an error of the function.
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm))
        || error.detail().is_some_and(|detail| {
            detail.contains("executing the script can't")
                || detail.contains("ACL failure in script")
        })
}

/// The error for who asked `store` for `operation`.
pub(super) fn failure(store: &str, operation: &'static str, error: &RedisError) -> StoreError {
    let store = store.to_owned();
    let mut reason = match error.kind() {
        ErrorKind::AuthenticationFailed => "the user name or password was not accepted".to_owned(),
        _ if is_forbidden(error) => format!(
            "the user lacks a permission that README lists under \"Redis\": {}",
            error.detail().unwrap_or("it is not named")
        ),
        _ => error.to_string(),
    };
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON)
            .rev()
            .find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or_default());
    }
    if passes(error) {
        StoreError::Unavailable { store, reason }
    } else {
        StoreError::Refused {
            store,
            operation,
            reason,
        }
    }
}
