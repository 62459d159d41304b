//! Calling the server-side functions, and loading them whenever a server does not know them.

use std::io::Write as _;

use redis::{Arg, Cmd, RedisError, RedisWrite as _, Value};

use super::connection::{Confirmed, Link};
use super::keys::crc32;
use super::requirements;
use crate::error::StoreError;

/// The queue's functions, the key-value store's, and those that check and mend the queue, in one library: each file
/// uses what those before it define.
pub(super) const SOURCE: &str = concat!(
    include_str!("lua/layout.lua"),
    include_str!("lua/stamps.lua"),
    include_str!("lua/batches.lua"),
    include_str!("lua/records.lua"),
    include_str!("lua/rings.lua"),
    include_str!("lua/waiting.lua"),
    include_str!("lua/put_back.lua"),
    include_str!("lua/stalling.lua"),
    include_str!("lua/turns.lua"),
    include_str!("lua/lease.lua"),
    include_str!("lua/enqueue.lua"),
    include_str!("lua/record.lua"),
    include_str!("lua/list.lua"),
    include_str!("lua/replay.lua"),
    include_str!("lua/retain.lua"),
    include_str!("lua/quotas.lua"),
    include_str!("lua/kv.lua"),
    include_str!("lua/check/standing.lua"),
    include_str!("lua/check/lanes.lua"),
    include_str!("lua/check/records.lua"),
    include_str!("lua/check/finished.lua"),
    include_str!("lua/check/relist.lua"),
    include_str!("lua/check/judge.lua"),
    include_str!("lua/check/sequences.lua"),
    include_str!("lua/check/counts.lua"),
);

/// How often one call may find them missing. A slot can move on to one server after another.
const LOADS: usize = 3;

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
    /// The number of the shard that it is about.
    shard: usize,
    /// Whether it is about new work, and goes before the batches of all other.
    prompt: bool,
    command: Cmd,
    /// The last of what items have in common.
    head: Vec<u8>,
}

impl Call {
    /// Makes room for so many bytes of arguments: moving large ones while they grow costs as much as writing them.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.command.reserve_space_for_args([bytes]);
    }

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

    /// Adds what an item has in common with others, or an empty argument if it is that of the item before it: the
    /// server looks at every byte that it is given.
    pub(super) fn head(&mut self, head: &[u8]) {
        if self.head == head {
            self.command.arg("");
        } else {
            self.command.arg(head);
            self.head.clear();
            self.head.extend_from_slice(head);
        }
    }

    /// The number of the shard that it is about.
    pub(super) fn about(&self) -> usize {
        self.shard
    }

    /// Has it go before the batches of all other work, as calls that enqueue do.
    pub(super) fn prompt(&mut self) -> &mut Self {
        self.prompt = true;
        self
    }

    /// As it is sent.
    pub(super) fn into_command(self) -> Cmd {
        self.command
    }

    /// Whether others wait meanwhile: it is about many tenants, or is one of many calls that are waited for
    /// together.
    pub(super) fn holds_up(&self) -> bool {
        matches!(
            self.operation,
            "enqueue" | "known" | "lease" | "record" | "release" | "quotas" | "backlog"
        )
    }

    /// Whether somebody goes by the answer as by a promise.
    fn acknowledges(&self) -> bool {
        matches!(self.operation, "enqueue" | "record" | "replay" | "skip")
    }

    /// The shard's prefix.
    fn shard(&self) -> &str {
        match self.command.args_iter().nth(3) {
            Some(Arg::Simple(shard)) => std::str::from_utf8(shard).unwrap_or_default(),
            _ => "",
        }
    }
}

/// One argument that is made of parts.
pub(super) struct Parts<'a>(pub(super) &'a [&'a [u8]]);

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

    /// Checks that the user may do what the queue does, then gives the functions to the server, or
    /// to every master of a cluster.
    pub(super) async fn load(&self, link: &Link) -> Result<(), StoreError> {
        requirements::check_queue(link).await?;
        let answer = link.raw(&self.load_command()).await;
        match answer.map_err(|error| link.failure("FUNCTION LOAD", &error)) {
            // One node of a cluster may be away; it gets them when a call misses them there.
            Err(StoreError::Unavailable { .. }) if link.is_cluster() => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    fn load_command(&self) -> Cmd {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg("REPLACE").arg(&self.code);
        command
    }

    /// Begins a call on a shard.
    ///
    /// The functions make their keys out of the first. The second, which never exists, is for a
    /// cluster whose slot is on the move: a server refuses a call on two keys that it does not have
    /// both, before anything of it happened, while with one it would let the call work on the part
    /// of the shard that has arrived already.
    pub(super) fn call(&self, name: &'static str, number: usize, shard: &str) -> Call {
        let mut command = redis::cmd("FCALL");
        command
            .arg(format!("{}_{name}", self.library))
            .arg(2)
            .arg(shard)
            .arg(shard.trim_end_matches(':'));
        Call {
            operation: name,
            shard: number,
            prompt: matches!(name, "enqueue" | "known"),
            command,
            head: Vec::new(),
        }
    }

    /// Makes the call. A server that lost the functions, or never had them, gets them.
    pub(super) async fn run(&self, link: &Link, call: &Call) -> Result<Value, StoreError> {
        for _ in 0..LOADS {
            match Self::once(link, call).await {
                Ok((answer, confirmed)) => {
                    link.check(confirmed)?;
                    return Ok(answer);
                }
                Err(error) if is_missing(&error) => self.load_at(link, call.shard()).await?,
                Err(error) => return Err(link.failure(call.operation, &error)),
            }
        }
        Err(StoreError::Unavailable {
            store: link.name().to_owned(),
            reason: "the queue's functions are missing again as soon as they are loaded".to_owned(),
        })
    }

    /// Runs a command and makes the call after it, in one step. Nothing, if the server did not have the functions:
    /// it has them now, but the command was run.
    pub(super) async fn run_after(
        &self,
        link: &Link,
        command: Cmd,
        call: Call,
    ) -> Result<Option<Value>, StoreError> {
        let (operation, shard) = (call.operation, call.shard().to_owned());
        match link.prompt_together([command, call.command]).await {
            Ok(answers) => Ok(answers.into_iter().next_back()),
            Err(error) if is_missing(&error) => {
                self.load_at(link, &shard).await?;
                Ok(None)
            }
            Err(error) => Err(link.failure(operation, &error)),
        }
    }

    async fn load_at(&self, link: &Link, shard: &str) -> Result<(), StoreError> {
        tracing::info!(server = link.name(), "loading the queue's functions");
        let loaded = link.raw_at(shard, &self.load_command()).await;
        loaded
            .map(|_| ())
            .map_err(|error| link.failure("FUNCTION LOAD", &error))
    }

    async fn once(link: &Link, call: &Call) -> Result<(Value, Confirmed), RedisError> {
        if call.acknowledges() && link.confirms() {
            let mark = format!("{}wait", call.shard());
            return link.confirmed(&call.command, &mark).await;
        }
        let answer = if call.prompt {
            link.prompt(&call.command).await?
        } else {
            link.raw(&call.command).await?
        };
        Ok((answer, Confirmed::Unasked))
    }
}

/// Whether a server does not know the functions.
fn is_missing(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}
