//! The stream that producers push events to.
//!
//! An entry belongs to one host from being read until it is acknowledged. A host reads first what
//! it had not acknowledged itself, as after a restart or a lost answer, then what other hosts have
//! left for longer than [`RedisConfig::claim_after`], then what is new.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;
use wasmhook_core::EventDraft;

use super::config::RedisConfig;
use super::connection::{Connection, Link};
use super::requirements;
use crate::error::StoreError;
use crate::stream::{EventStream, StreamEntry};

/// The longest single wait on the server. A caller's longer wait ends early, which it may; so a
/// server that is gone without a word is noticed.
const MAX_BLOCK: Duration = Duration::from_secs(5);

/// Where reading stands.
struct Reader {
    /// The connection that may block, while there is one.
    connection: Option<Connection>,
    /// After which id to go on with what is this host's own and not acknowledged; `None` when that
    /// is done.
    own: Option<String>,
    /// When to look next for what other hosts left.
    claim_at: Instant,
    /// Where to go on looking.
    claim_from: String,
}

/// Events in a Redis stream.
pub struct RedisStream {
    link: Link,
    key: String,
    group: String,
    consumer: String,
    claim_after: Duration,
    reader: Mutex<Reader>,
}

impl RedisStream {
    /// Connects, and makes the stream and its group if they are missing.
    pub async fn connect(config: RedisConfig) -> Result<Self, StoreError> {
        let link = Link::connect(&config).await?;
        let stream = Self {
            link,
            key: config.stream,
            group: config.group,
            consumer: config.consumer,
            claim_after: config.claim_after,
            reader: Mutex::new(Reader {
                connection: None,
                own: Some("0".to_owned()),
                claim_at: Instant::now(),
                claim_from: "0".to_owned(),
            }),
        };
        requirements::check_stream(&stream.link, &stream.key).await?;
        stream.create().await?;
        Ok(stream)
    }

    async fn create(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.key).arg(&self.group);
        // From the beginning: what was pushed before there was a group counts as well.
        command.arg("0").arg("MKSTREAM");
        match self.link.raw(&command).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            Err(error) => Err(self.link.failure("XGROUP CREATE", &error)),
        }
    }

    fn read_group(&self, max: usize, after: &str, block: Option<Duration>) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer);
        command.arg("COUNT").arg(max.max(1));
        if let Some(block) = block {
            // Zero would mean forever.
            command
                .arg("BLOCK")
                .arg(block.as_millis().max(1).to_string());
        }
        command.arg("STREAMS").arg(&self.key).arg(after);
        command
    }

    /// Runs a command; when the group is missing, makes it and tries once more.
    async fn with_group(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Value, StoreError> {
        match self.link.raw(command).await {
            Err(error) if error.code() == Some("NOGROUP") => {
                self.create().await?;
                self.link.query(operation, command).await
            }
            answer => answer.map_err(|error| self.link.failure(operation, &error)),
        }
    }

    /// This host's own entries that it has not acknowledged.
    async fn own(&self, reader: &mut Reader, max: usize) -> Result<Vec<StreamEntry>, StoreError> {
        while let Some(after) = reader.own.clone() {
            let command = self.read_group(max, &after, None);
            let answer = self.with_group("XREADGROUP", &command).await?;
            let entries = entries_of_read(answer).ok_or_else(|| self.garbled())?;
            reader.own = entries.last().map(|entry| entry.id.clone());
            let entries = self.living(entries).await?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// What other hosts left.
    async fn claimed(
        &self,
        reader: &mut Reader,
        max: usize,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        while reader.claim_at <= Instant::now() {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(&self.key).arg(&self.group).arg(&self.consumer);
            command.arg(self.claim_after.as_millis().to_string());
            command.arg(&reader.claim_from).arg("COUNT").arg(max.max(1));
            let answer = self.with_group("XAUTOCLAIM", &command).await?;
            let (next, entries) = entries_of_claim(answer).ok_or_else(|| self.garbled())?;
            let end = next == "0-0";
            reader.claim_from = next;
            if end {
                reader.claim_at = Instant::now() + self.claim_after / 2;
            }
            let entries = self.living(entries).await?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// New entries, waiting for them.
    async fn fresh(
        &self,
        reader: &mut Reader,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        let block = wait.min(MAX_BLOCK);
        let command = self.read_group(max, ">", (!block.is_zero()).then_some(block));
        let mut connection = match reader.connection.take() {
            Some(connection) => connection,
            None => self.link.blocking().await?,
        };
        // Should the answer be lost, by an error or because nobody waits any more, the entries are
        // this host's already: they are read again as its own.
        reader.own = Some("0".to_owned());
        let patience = block + self.link.connect_timeout();
        let answer: Result<Value, RedisError> =
            match tokio::time::timeout(patience, command.query_async(&mut connection)).await {
                Ok(answer) => answer,
                Err(_) => {
                    return Err(StoreError::Unavailable {
                        store: self.link.name().to_owned(),
                        reason: "no answer to a read".to_owned(),
                    });
                }
            };
        match answer {
            Ok(answer) => {
                reader.own = None;
                reader.connection = Some(connection);
                let entries = entries_of_read(answer).ok_or_else(|| self.garbled())?;
                self.living(entries).await
            }
            Err(error) if error.code() == Some("NOGROUP") => {
                reader.own = None;
                reader.connection = Some(connection);
                self.create().await?;
                Ok(Vec::new())
            }
            Err(error) => Err(self.link.failure("XREADGROUP", &error)),
        }
    }

    /// The entries that still have content; the others were deleted, and are acknowledged.
    async fn living(&self, entries: Vec<RawEntry>) -> Result<Vec<StreamEntry>, StoreError> {
        let mut living = Vec::with_capacity(entries.len());
        let mut gone = Vec::new();
        for entry in entries {
            match entry.draft {
                Some(draft) => living.push(StreamEntry {
                    id: entry.id,
                    draft,
                }),
                None => gone.push(entry.id),
            }
        }
        if !gone.is_empty() {
            self.acknowledge(&gone).await?;
        }
        Ok(living)
    }

    fn garbled(&self) -> StoreError {
        self.link.unexpected("XREADGROUP")
    }
}

#[async_trait]
impl EventStream for RedisStream {
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>, StoreError> {
        let mut reader = self.reader.lock().await;
        let own = self.own(&mut reader, max).await?;
        if !own.is_empty() {
            return Ok(own);
        }
        let claimed = self.claimed(&mut reader, max).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        self.fresh(&mut reader, max, wait).await
    }

    async fn unacknowledged(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        let mut after = after.unwrap_or("0").to_owned();
        loop {
            let command = self.read_group(max, &after, None);
            let answer = self.with_group("XREADGROUP", &command).await?;
            let entries = entries_of_read(answer).ok_or_else(|| self.garbled())?;
            let Some(last) = entries.last().map(|entry| entry.id.clone()) else {
                return Ok(Vec::new());
            };
            let entries = self.living(entries).await?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            after = last;
        }
    }

    async fn acknowledge(&self, ids: &[String]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for ids in ids.chunks(1000) {
            pipeline
                .cmd("XACK")
                .arg(&self.key)
                .arg(&self.group)
                .arg(ids)
                .ignore();
            pipeline.cmd("XDEL").arg(&self.key).arg(ids).ignore();
        }
        self.link.pipeline("XACK", &pipeline).await
    }

    async fn push(&self, events: &[EventDraft]) -> Result<(), StoreError> {
        for events in events.chunks(1000) {
            let mut pipeline = redis::pipe();
            for event in events {
                let command = pipeline.cmd("XADD").arg(&self.key).arg("*");
                command.arg("tenant").arg(&event.tenant);
                command.arg("type").arg(&event.event_type);
                command.arg("id").arg(&event.id);
                command.arg("payload").arg(event.payload.as_ref());
                if let Some(at) = &event.occurred_at {
                    command.arg("occurred_at").arg(at);
                }
                if let Some(at) = &event.deliver_at {
                    command.arg("deliver_at").arg(at);
                }
                if let Some(key) = &event.ordering_key {
                    command.arg("ordering_key").arg(key);
                }
                command.ignore();
            }
            self.link.write("XADD", &pipeline).await?;
        }
        Ok(())
    }
}

/// An entry, or the id of one that is gone.
struct RawEntry {
    id: String,
    draft: Option<EventDraft>,
}

fn text(value: Value) -> Option<String> {
    bytes(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn entries_of_read(answer: Value) -> Option<Vec<RawEntry>> {
    let streams = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let mut entries = Vec::new();
    for stream in streams {
        let Value::Array(parts) = stream else {
            return None;
        };
        entries.extend(entries_of(parts.into_iter().nth(1)?)?);
    }
    Some(entries)
}

fn entries_of_claim(answer: Value) -> Option<(String, Vec<RawEntry>)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let mut parts = parts.into_iter();
    Some((text(parts.next()?)?, entries_of(parts.next()?)?))
}

fn entries_of(value: Value) -> Option<Vec<RawEntry>> {
    let Value::Array(entries) = value else {
        return None;
    };
    // Old servers have nil in the place of what was deleted.
    entries
        .into_iter()
        .filter(|entry| !matches!(entry, Value::Nil))
        .map(|entry| {
            let Value::Array(parts) = entry else {
                return None;
            };
            let mut parts = parts.into_iter();
            let id = text(parts.next()?)?;
            let draft = match parts.next() {
                Some(Value::Array(fields)) => Some(draft_of(fields)),
                _ => None,
            };
            Some(RawEntry { id, draft })
        })
        .collect()
}

/// In place of bytes that are not UTF-8: refused by the rule of every field. To mend them would make one of what
/// was two.
const NO_TEXT: &str = "\0";

/// The name by which errors call a field that an entry may have.
fn known(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"id" => "id",
        b"tenant" | b"tenant_id" => "tenant",
        b"type" => "type",
        b"payload" => "payload",
        b"occurred_at" => "occurred_at",
        b"deliver_at" => "deliver_at",
        b"ordering_key" => "ordering_key",
        _ => return None,
    })
}

/// A field that is missing stays empty, and one that is no text becomes [`NO_TEXT`], for validation to name it;
/// one that is unknown, or comes twice, has the draft refused.
fn draft_of(fields: Vec<Value>) -> EventDraft {
    let mut draft = EventDraft::default();
    let mut seen = Vec::new();
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (Some(name), Some(value)) = (bytes(name), bytes(value)) else {
            continue;
        };
        let Some(field) = known(&name) else {
            let unknown = EventDraft::unknown_field(&String::from_utf8_lossy(&name));
            draft.fault.get_or_insert(unknown);
            continue;
        };
        if seen.contains(&field) {
            draft.fault.get_or_insert(EventDraft::repeated_field(field));
            continue;
        }
        seen.push(field);
        if field == "payload" {
            draft.payload = Bytes::from(value);
            continue;
        }
        let text = String::from_utf8(value).unwrap_or_else(|_| NO_TEXT.to_owned());
        match field {
            "id" => draft.id = text,
            "tenant" => draft.tenant = text,
            "type" => draft.event_type = text,
            "occurred_at" => draft.occurred_at = Some(text),
            "deliver_at" => draft.deliver_at = Some(text),
            _ => draft.ordering_key = Some(text),
        }
    }
    draft
}
