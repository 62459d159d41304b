//! The stream that producers push events to.
//!
//! An entry is in the stream until it is acknowledged, and is handed out once. The group keeps no list of what is
//! under way (`NOACK`), which would cost Redis as much as reading itself: what is behind the last that was handed
//! out, and still there, is under way or left behind. So a host reads, before what is new, all of that when it
//! begins and when an answer got lost, and otherwise what has been so for longer than [`RedisConfig::claim_after`].
//! What other hosts have under way may be among it; to take an event in twice makes no second delivery.

use std::collections::{HashMap, VecDeque};
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
use crate::stream::{EntryId, EventStream, StreamEntry};

/// The longest single wait on the server. A caller's longer wait ends early, which it may; so a
/// server that is gone without a word is noticed.
const MAX_BLOCK: Duration = Duration::from_secs(5);

/// What the group handed out to this host's forerunners without `NOACK` is let go of so many at a time.
const LET_GO: usize = 1000;

/// Where reading stands.
struct Reader {
    /// The connection that may block, while there is one.
    connection: Option<Connection>,
    /// Whether something may have been handed to this host that it has not heard of.
    unsure: bool,
    /// When to look next for what was left behind.
    look_at: Instant,
    /// What had been handed out when, the oldest first.
    marks: VecDeque<(Instant, EntryId)>,
    /// Going through what was left behind, while there may be more.
    sweep: Option<Sweep>,
}

/// Going through what was handed out and is still there.
struct Sweep {
    /// The last one that was looked at.
    after: Option<EntryId>,
    upto: EntryId,
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
        let mut stream = Self {
            link,
            key: config.stream,
            group: config.group,
            consumer: config.consumer,
            claim_after: config.claim_after,
            reader: Mutex::new(Reader {
                connection: None,
                unsure: false,
                look_at: Instant::now(),
                marks: VecDeque::new(),
                sweep: None,
            }),
        };
        requirements::check_stream(&stream.link, &stream.key).await?;
        stream.create().await?;
        // What had been handed out before this host began may be what it left behind when it ended.
        let group = stream.group().await?;
        stream.reader.get_mut().sweep = group.map(|(upto, _)| Sweep { after: None, upto });
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

    /// What was handed out before and left behind.
    async fn left_behind(
        &self,
        reader: &mut Reader,
        max: usize,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        if reader.sweep.is_none() && (reader.unsure || reader.look_at <= Instant::now()) {
            self.look(reader).await?;
        }
        let Some(sweep) = &mut reader.sweep else {
            return Ok(Vec::new());
        };
        let from = match sweep.after {
            Some(after) => format!("({after}"),
            None => "-".to_owned(),
        };
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.key).arg(from);
        command.arg(sweep.upto.to_string());
        command.arg("COUNT").arg(max.max(1));
        let answer = self.link.query("XRANGE", &command).await?;
        let entries = entries_of(answer).ok_or_else(|| self.link.unexpected("XRANGE"))?;
        match entries.last() {
            Some(last) => sweep.after = Some(last.id),
            None => reader.sweep = None,
        }
        Ok(entries)
    }

    /// Looks how far the group has handed out, and begins to go through what was left behind.
    async fn look(&self, reader: &mut Reader) -> Result<(), StoreError> {
        let now = Instant::now();
        let Some((last, pending)) = self.group().await? else {
            self.create().await?;
            // All of the stream is new.
            reader.marks.clear();
            reader.unsure = false;
            return Ok(());
        };
        if pending > 0 {
            self.let_go().await?;
        }
        let mut old = None;
        while let Some((at, mark)) = reader.marks.front().copied()
            && now.saturating_duration_since(at) >= self.claim_after
        {
            old = Some(mark);
            reader.marks.pop_front();
        }
        // A group that was made anew hands out again what is behind.
        let upto = if reader.unsure {
            Some(last)
        } else {
            old.map(|mark| mark.min(last))
        };
        reader.sweep = upto.map(|upto| Sweep { after: None, upto });
        reader.unsure = false;
        reader.marks.push_back((now, last));
        reader.look_at = now + self.claim_after / 2;
        Ok(())
    }

    /// The last entry that the group handed out, and how many it has on its list of what is under way; `None` if there
    /// is no group.
    async fn group(&self) -> Result<Option<(EntryId, u64)>, StoreError> {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg(&self.key);
        let groups: Vec<HashMap<String, Value>> = match self.link.raw(&command).await {
            Ok(answer) => {
                redis::from_redis_value(answer).map_err(|_| self.link.unexpected("XINFO GROUPS"))?
            }
            Err(error) if error.to_string().contains("no such key") => return Ok(None),
            Err(error) => return Err(self.link.failure("XINFO GROUPS", &error)),
        };
        for mut group in groups {
            let mut field = |name: &str| group.remove(name).and_then(text);
            if field("name").as_deref() != Some(&*self.group) {
                continue;
            }
            let last = field("last-delivered-id").and_then(|id| id.parse().ok());
            let pending = field("pending").and_then(|count| count.parse().ok());
            return match (last, pending) {
                (Some(last), Some(pending)) => Ok(Some((last, pending))),
                _ => Err(self.link.unexpected("XINFO GROUPS")),
            };
        }
        Ok(None)
    }

    /// Empties the group's list of what is under way, which versions before this one kept, of all that they do not
    /// work at any more. It is in the stream nevertheless, and read as all that was left behind.
    async fn let_go(&self) -> Result<(), StoreError> {
        let mut from = "0-0".to_owned();
        loop {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(&self.key).arg(&self.group).arg(&self.consumer);
            command.arg(self.claim_after.as_millis().to_string());
            command.arg(&from).arg("COUNT").arg(LET_GO).arg("JUSTID");
            let answer = self.with_group("XAUTOCLAIM", &command).await?;
            let (next, ids) = claimed(answer).ok_or_else(|| self.link.unexpected("XAUTOCLAIM"))?;
            if !ids.is_empty() {
                let mut command = redis::cmd("XACK");
                command.arg(&self.key).arg(&self.group).arg(ids);
                let () = self.link.query("XACK", &command).await?;
            }
            if next == "0-0" {
                return Ok(());
            }
            from = next;
        }
    }

    /// New entries, waiting for them.
    async fn fresh(
        &self,
        reader: &mut Reader,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, StoreError> {
        let block = wait.min(MAX_BLOCK);
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer);
        command.arg("COUNT").arg(max.max(1));
        if !block.is_zero() {
            // Zero would mean forever.
            command
                .arg("BLOCK")
                .arg(block.as_millis().max(1).to_string());
        }
        command.arg("NOACK");
        command.arg("STREAMS").arg(&self.key).arg(">");
        let mut connection = match reader.connection.take() {
            Some(connection) => connection,
            None => self.link.blocking().await?,
        };
        // Should the answer be lost, by an error or because nobody waits any more, the entries are handed out already.
        reader.unsure = true;
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
                let entries =
                    entries_of_read(answer).ok_or_else(|| self.link.unexpected("XREADGROUP"))?;
                reader.unsure = false;
                reader.connection = Some(connection);
                Ok(entries)
            }
            Err(error) if error.code() == Some("NOGROUP") => {
                reader.unsure = false;
                reader.connection = Some(connection);
                self.create().await?;
                Ok(Vec::new())
            }
            Err(error) => Err(self.link.failure("XREADGROUP", &error)),
        }
    }
}

#[async_trait]
impl EventStream for RedisStream {
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>, StoreError> {
        let mut reader = self.reader.lock().await;
        loop {
            let left = self.left_behind(&mut reader, max).await?;
            if !left.is_empty() {
                return Ok(left);
            }
            if reader.sweep.is_none() {
                return self.fresh(&mut reader, max, wait).await;
            }
        }
    }

    async fn reread(&self, ids: &[EntryId]) -> Result<Vec<StreamEntry>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(1000) {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            for id in ids.iter().map(EntryId::to_string) {
                pipeline.cmd("XRANGE").arg(&self.key).arg(&id).arg(&id);
            }
            let answers: Vec<Value> = self.link.pipeline("XRANGE", &pipeline).await?;
            for answer in answers {
                found.extend(entries_of(answer).ok_or_else(|| self.link.unexpected("XRANGE"))?);
            }
        }
        Ok(found)
    }

    async fn acknowledge(&self, ids: &[EntryId]) -> Result<(), StoreError> {
        for ids in ids.chunks(1000) {
            let mut command = redis::cmd("XDEL");
            command.arg(&self.key);
            for id in ids {
                command.arg(id.to_string());
            }
            let () = self.link.query("XDEL", &command).await?;
        }
        Ok(())
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

fn entries_of_read(answer: Value) -> Option<Vec<StreamEntry>> {
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

/// Where to go on, and the ids.
fn claimed(answer: Value) -> Option<(String, Vec<String>)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let mut parts = parts.into_iter();
    let next = text(parts.next()?)?;
    let Value::Array(ids) = parts.next()? else {
        return None;
    };
    Some((next, ids.into_iter().filter_map(text).collect()))
}

fn entries_of(value: Value) -> Option<Vec<StreamEntry>> {
    let Value::Array(entries) = value else {
        return None;
    };
    let entry = |entry| {
        let Value::Array(parts) = entry else {
            return None;
        };
        let mut parts = parts.into_iter();
        let id = text(parts.next()?)?.parse().ok()?;
        let Value::Array(fields) = parts.next()? else {
            return None;
        };
        Some(StreamEntry {
            id,
            draft: draft_of(fields),
        })
    };
    entries.into_iter().map(entry).collect()
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
