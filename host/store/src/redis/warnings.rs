//! Settings of the servers that could lose data, or hold it up.

use redis::{Cmd, Value};

use super::connection::Link;
use crate::error::StoreError;

/// One sentence for each such setting of each server.
pub(super) async fn of(link: &Link) -> Result<Vec<String>, StoreError> {
    let mut warnings = Vec::new();
    for (server, value) in setting(link, "appendonly").await? {
        match value.as_deref() {
            Some("yes") => {}
            Some(_) => warnings.push(format!(
                "{server} has appendonly off: deliveries and events since its last snapshot are lost if it stops"
            )),
            None => warnings.push(format!(
                "{server} does not tell its settings; without appendonly, deliveries since its last snapshot are lost if it stops, and with a maxmemory-policy other than noeviction it may drop deliveries when memory is short"
            )),
        }
    }
    for (server, value) in setting(link, "maxmemory-policy").await? {
        if let Some(policy) = value.filter(|value| value != "noeviction") {
            warnings.push(format!(
                "{server} has the maxmemory-policy {policy}: it may drop deliveries and events when memory is short; set noeviction"
            ));
        }
    }
    if let Some(wanted) = link.wanted_replicas() {
        for (server, replicas) in replicas(link).await? {
            if replicas < wanted {
                warnings.push(format!(
                    "{server} has {replicas} replicas, but redis.wait_replicas is {wanted}: nothing is acknowledged while that is so"
                ));
            }
        }
    }
    Ok(warnings)
}

/// A setting of each server, if it tells.
async fn setting(link: &Link, name: &str) -> Result<Vec<(String, Option<String>)>, StoreError> {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg(name);
    let answers = ask(link, "CONFIG GET", &question).await?;
    let value = |answer: Option<Value>| {
        let pair: Vec<String> = redis::from_redis_value(answer?).ok()?;
        pair.into_iter().nth(1)
    };
    Ok(answers
        .into_iter()
        .map(|(server, answer)| (server, value(answer)))
        .collect())
}

/// How many replicas each master has, of those that tell.
async fn replicas(link: &Link) -> Result<Vec<(String, usize)>, StoreError> {
    let answers = ask(link, "ROLE", &redis::cmd("ROLE")).await?;
    let count = |answer: Option<Value>| {
        let Value::Array(parts) = answer? else {
            return None;
        };
        match parts.as_slice() {
            [Value::BulkString(role), _, Value::Array(replicas)] if role == b"master" => {
                Some(replicas.len())
            }
            _ => None,
        }
    };
    Ok(answers
        .into_iter()
        .filter_map(|(server, answer)| Some((server, count(answer)?)))
        .collect())
}

/// What each server answers; nothing if it refuses.
async fn ask(
    link: &Link,
    operation: &'static str,
    question: &Cmd,
) -> Result<Vec<(String, Option<Value>)>, StoreError> {
    let answers = link.every(question).await;
    let answers = match answers.map_err(|error| link.failure(operation, &error)) {
        // One node of a cluster may be away, which is no reason not to start.
        Err(StoreError::Unavailable { .. }) if link.is_cluster() => return Ok(Vec::new()),
        answers => answers?,
    };
    answers
        .into_iter()
        .map(|(server, answer)| match answer {
            Ok(answer) => Ok((server, Some(answer))),
            Err(error) => match link.failure(operation, &error) {
                error @ StoreError::Unavailable { .. } => Err(error),
                _ => Ok((server, None)),
            },
        })
        .collect()
}
