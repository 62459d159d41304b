//! What the server's user must be allowed to do, checked when the host connects.
//!
//! The commands are queued in a transaction that is then discarded: a server checks permissions
//! when it queues, so nothing happens and nothing is left out.

use std::collections::BTreeSet;

use redis::{Cmd, RedisError};

use super::connection::Link;
use crate::error::StoreError;

/// Commands on keys of a shard that the functions and the store use, as many words as each needs.
/// Words beyond the key are placeholders.
const SHARD: [(&str, usize); 44] = [
    ("GET", 0),
    ("SET", 1),
    ("MGET", 0),
    ("MSET", 1),
    ("MSETNX", 1),
    ("EXISTS", 0),
    ("DEL", 0),
    ("UNLINK", 0),
    ("PEXPIRE", 1),
    ("INCRBY", 1),
    ("DECR", 0),
    ("HGET", 1),
    ("HSET", 2),
    ("HMGET", 1),
    ("HGETALL", 0),
    ("HINCRBY", 2),
    ("HDEL", 1),
    ("HLEN", 0),
    ("HSCAN", 1),
    ("LPOP", 0),
    ("LPOS", 1),
    ("LPUSH", 1),
    ("RPUSH", 1),
    ("LLEN", 0),
    ("LRANGE", 2),
    ("LREM", 2),
    ("LTRIM", 2),
    ("ZADD", 2),
    ("ZREM", 1),
    ("ZRANGE", 2),
    ("ZSCAN", 1),
    ("ZMSCORE", 1),
    ("ZSCORE", 1),
    ("ZCARD", 0),
    ("SADD", 1),
    ("SREM", 1),
    ("SCARD", 0),
    ("SCAN", 0),
    ("SMEMBERS", 0),
    ("SMISMEMBER", 1),
    ("XADD", 3),
    ("XDEL", 1),
    ("XRANGE", 2),
    ("XREVRANGE", 2),
];

fn on(name: &str, key: &str, more: usize) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    for _ in 0..more {
        command.arg("0");
    }
    command
}

/// Checks what the queue and its records need.
pub(super) async fn check_queue(link: &Link) -> Result<(), StoreError> {
    let names = link.names();
    // The key of `Functions::call` that never exists.
    let shard = format!("{{{}:0}}", names.prefix);
    let mut calls: Vec<Cmd> = SHARD
        .iter()
        .map(|(name, more)| on(name, &shard, *more))
        .collect();
    let mut rename = redis::cmd("RENAME");
    rename.arg(&shard).arg(&shard);
    calls.push(rename);
    calls.push(redis::cmd("TIME"));
    calls.push(redis::cmd("PING"));
    let mut call = redis::cmd("FCALL");
    call.arg("f").arg(1).arg(&shard);
    calls.push(call);
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg("code");
    calls.push(load);
    let channel = format!("{}:wake", names.prefix);
    for name in ["PUBLISH", "SUBSCRIBE"] {
        calls.push(on(name, &channel, usize::from(name == "PUBLISH")));
    }
    if link.confirms() {
        calls.push(on("WAIT", "0", 1));
    }
    let meta = format!("{}:meta", names.prefix);
    let rejected = format!("{}:rejected", names.prefix);
    check(
        link,
        vec![
            (shard.as_str(), calls),
            (
                meta.as_str(),
                vec![
                    on("HSETNX", &meta, 2),
                    on("HSET", &meta, 2),
                    on("HGET", &meta, 1),
                ],
            ),
            (
                rejected.as_str(),
                vec![
                    on("LPUSH", &rejected, 1),
                    on("LTRIM", &rejected, 2),
                    on("LRANGE", &rejected, 2),
                ],
            ),
        ],
    )
    .await
}

/// Checks what the stream of pushed events needs.
pub(super) async fn check_stream(link: &Link, key: &str) -> Result<(), StoreError> {
    let mut group = redis::cmd("XGROUP");
    group.arg("CREATE").arg(key).arg("g").arg("0");
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("g").arg("c");
    read.arg("NOACK").arg("STREAMS").arg(key).arg(">");
    let mut claim = redis::cmd("XAUTOCLAIM");
    claim.arg(key).arg("g").arg("c").arg(0).arg("0");
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(key);
    let mut add = redis::cmd("XADD");
    add.arg(key).arg("*").arg("f").arg("v");
    let calls = vec![
        group,
        read,
        claim,
        info,
        add,
        on("XRANGE", key, 2),
        on("XACK", key, 2),
        on("XDEL", key, 1),
    ];
    check(link, vec![(key, calls)]).await
}

/// Rehearses groups of commands, each on the key that it comes with.
async fn check(link: &Link, groups: Vec<(&str, Vec<Cmd>)>) -> Result<(), StoreError> {
    let mut lacks = BTreeSet::new();
    for (key, calls) in groups {
        let refusals = link.rehearse(key, calls).await;
        let refusals = refusals.map_err(|error| link.failure("MULTI", &error))?;
        for error in refusals {
            if let Some(what) = lack(&error, key, &link.names().prefix) {
                lacks.insert(what);
            } else if error.to_string().contains("unknown command") {
                return Err(StoreError::Configuration(format!(
                    "{} is too old or lacks commands; Redis 7.0 or newer, or Valkey, is needed: {}",
                    link.name(),
                    error.detail().unwrap_or_default()
                )));
            } else {
                return Err(link.failure("MULTI", &error));
            }
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let lacks: Vec<_> = lacks.into_iter().collect();
    Err(StoreError::Configuration(format!(
        "{} does not let its user do what the queue needs: {}; README lists all under \"Redis\"",
        link.name(),
        lacks.join(", ")
    )))
}

/// What the user lacks, in the words of an ACL where possible.
fn lack(error: &RedisError, key: &str, prefix: &str) -> Option<String> {
    if !Link::is_forbidden(error) {
        return None;
    }
    let detail = error.detail().unwrap_or_default();
    Some(
        if detail.contains("one of the keys") || detail.contains("access a key") {
            match key.strip_prefix('{') {
                Some(_) => format!("~{{{prefix}:*"),
                None if key.starts_with(&format!("{prefix}:")) => format!("~{prefix}:*"),
                None => format!("~{key}"),
            }
        } else if detail.contains("channel") {
            format!("&{prefix}:wake")
        } else {
            match detail.split('\'').nth(1) {
                Some(name) => format!("+{name}"),
                None => detail.to_owned(),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::functions::SOURCE;

    /// Commands that the store sends itself.
    const OURS: [&str; 6] = ["GET", "HSCAN", "MGET", "SCAN", "SMEMBERS", "ZSCAN"];

    /// Commands that the functions call: words in capitals that are no options.
    fn used() -> BTreeSet<&'static str> {
        let mut used = BTreeSet::new();
        for part in SOURCE.split(['(', ',']).map(str::trim_start) {
            let word = part.strip_prefix('\'').and_then(|w| w.split('\'').next());
            let Some(word) = word else { continue };
            if word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase()) {
                used.insert(word);
            }
        }
        for option in ["WITHSCORES", "BYSCORE", "REV", "LIMIT", "COUNT"] {
            used.remove(option);
        }
        used
    }

    #[test]
    fn every_command_of_the_functions_is_checked_and_no_other() {
        let used = used();
        for word in &used {
            let known = SHARD.iter().any(|(name, _)| name == word);
            assert!(
                known || matches!(*word, "TIME" | "PUBLISH" | "RENAME"),
                "a function uses {word}: add it to the commands that are checked, and to README"
            );
        }
        for (name, _) in SHARD {
            assert!(
                used.contains(name) || OURS.contains(&name),
                "nothing uses {name} on keys of a shard any more"
            );
        }
    }

    #[test]
    fn readme_lists_every_command() {
        let readme = include_str!("../../../../README.md");
        for (name, _) in SHARD {
            let word = format!("+{}", name.to_lowercase());
            assert!(
                readme.split_whitespace().any(|part| part == word),
                "README does not list {word} for the ACL user"
            );
        }
    }
}
