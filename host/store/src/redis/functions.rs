//! Calling the server-side functions, and loading them whenever the server does not know them.

use std::io::Write as _;

use redis::{Cmd, Value};

use super::connection::Link;
use super::keys::crc32;
use crate::error::StoreError;

const SOURCE: &str = include_str!("queue.lua");

/// The functions, under a name that changes with their text, so that hosts of two versions can
/// share a server.
#[derive(Clone)]
pub(super) struct Functions {
    library: String,
    code: String,
}

/// A call in the making.
pub(super) struct Call {
    operation: &'static str,
    command: Cmd,
}

impl Call {
    /// Adds an argument.
    pub(super) fn arg(&mut self, value: impl redis::ToRedisArgs) -> &mut Self {
        self.command.arg(value);
        self
    }

    /// Adds one argument that is made of parts, without putting them together first.
    pub(super) fn parts(&mut self, parts: &[&[u8]]) -> &mut Self {
        self.command.arg(Parts(parts));
        self
    }
}

struct Parts<'a>(&'a [&'a [u8]]);

impl redis::ToRedisArgs for Parts<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        let mut to = out.writer_for_next_arg();
        for part in self.0 {
            // The writer fills a buffer of the command's own.
            to.write_all(part).expect("memory takes everything");
        }
    }
}

impl redis::ToSingleRedisArg for Parts<'_> {}

impl Functions {
    pub(super) fn new() -> Self {
        let library = format!("wasmhook_{:08x}", crc32(SOURCE.as_bytes()));
        let code = format!(
            "#!lua name={library}\n{}",
            SOURCE.replace("'@_", &format!("'{library}_"))
        );
        Self { library, code }
    }

    /// Gives the functions to the server.
    pub(super) async fn load(&self, link: &Link) -> Result<(), StoreError> {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg("REPLACE").arg(&self.code);
        match link.raw(&command).await {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("unknown command") => {
                Err(StoreError::Configuration(format!(
                    "{} has no functions; version 7.0 or newer is needed",
                    link.name()
                )))
            }
            Err(error) => Err(link.failure("FUNCTION LOAD", &error)),
        }
    }

    /// Begins a call on a shard.
    pub(super) fn call(&self, name: &'static str, shard: &str) -> Call {
        let mut command = redis::cmd("FCALL");
        command
            .arg(format!("{}_{name}", self.library))
            .arg(1)
            .arg(shard);
        Call {
            operation: name,
            command,
        }
    }

    /// Makes the call. A server that lost the functions gets them again.
    pub(super) async fn run(&self, link: &Link, call: &Call) -> Result<Value, StoreError> {
        match link.raw(&call.command).await {
            Err(error) if error.to_string().contains("Function not found") => {
                tracing::info!(server = link.name(), "loading the queue's functions");
                self.load(link).await?;
                link.query(call.operation, &call.command).await
            }
            answer => answer.map_err(|error| link.failure(call.operation, &error)),
        }
    }
}
