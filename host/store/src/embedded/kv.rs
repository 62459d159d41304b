//! The key-value store in the embedded file. A write removes what has ended of its tenant before it
//! counts, so the quota is for what is really there.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use wasmhook_core::TenantId;

use super::EmbeddedStore;
use super::clock::span;
use super::thread::Fault;
use super::writer::Writer;
use crate::kv::{Forgotten, KeyValue, KeyValueError, Writing, millis, number};

/// Keys that one task of the writer removes of a tenant that is forgotten: a moment's work.
const FORGOTTEN_AT_ONCE: u32 = 500;

/// One tenant's key in a task of the writer.
struct Place<'a> {
    writer: &'a Writer,
    tenant: &'a str,
    key: &'a str,
    now: i64,
}

/// An answer of the writer: refusals are answers, so that other tasks of the transaction go on.
type Answer<T> = Result<Result<T, KeyValueError>, Fault>;

fn value(
    connection: &Connection,
    tenant: &str,
    key: &str,
    now: i64,
) -> Result<Option<Vec<u8>>, Fault> {
    Ok(connection
        .prepare_cached(
            "SELECT value FROM key_values
             WHERE tenant = ?1 AND key = ?2 AND (ends IS NULL OR ends > ?3)",
        )?
        .query_row(params![tenant, key.as_bytes(), now], |row| row.get(0))
        .optional()?)
}

impl<'a> Place<'a> {
    /// The place, with what has ended of the tenant removed.
    fn new(writer: &'a Writer, tenant: &'a str, key: &'a str) -> Result<Self, Fault> {
        let now = writer.clock.now();
        let place = Self {
            writer,
            tenant,
            key,
            now,
        };
        let mut ended = writer.connection.prepare_cached(
            "DELETE FROM key_values WHERE tenant = ?1 AND ends <= ?2
             RETURNING length(key) + length(value)",
        )?;
        let sizes: Vec<i64> = ended
            .query_map(params![tenant, now], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if !sizes.is_empty() {
            let count = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
            place.count(-count, -sizes.iter().sum::<i64>())?;
        }
        Ok(place)
    }

    fn value(&self) -> Result<Option<Vec<u8>>, Fault> {
        value(&self.writer.connection, self.tenant, self.key, self.now)
    }

    fn count(&self, keys: i64, bytes: i64) -> Result<(), Fault> {
        count(&self.writer.connection, self.tenant, keys, bytes)
    }

    fn kept(&self) -> Result<(i64, i64), Fault> {
        Ok(self
            .writer
            .connection
            .prepare_cached("SELECT keys, bytes FROM key_values_kept WHERE tenant = ?1")?
            .query_row([self.tenant], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .unwrap_or_default())
    }

    /// Puts a value in place of the one before, as far as the quota allows.
    fn put(&self, before: Option<&[u8]>, value: &[u8], writing: Writing) -> Answer<()> {
        let (keys, bytes) = match before {
            Some(before) => (0, size(value) - size(before)),
            None => (1, size(value) + size(self.key.as_bytes())),
        };
        let (have_keys, have_bytes) = self.kept()?;
        let most = |quota: u64| i64::try_from(quota).unwrap_or(i64::MAX);
        let quota = writing.quota;
        if keys > 0 && have_keys + keys > most(quota.keys) {
            return Ok(Err(KeyValueError::TooManyKeys(quota.keys)));
        }
        if bytes > 0 && have_bytes + bytes > most(quota.bytes) {
            return Ok(Err(KeyValueError::TooManyBytes(quota.bytes)));
        }
        let ends = writing.ttl.map(|ttl| self.end(ttl));
        self.writer
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO key_values (tenant, key, value, ends) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.tenant, self.key.as_bytes(), value, ends])?;
        self.count(keys, bytes)?;
        Ok(Ok(()))
    }

    fn end(&self, ttl: Duration) -> i64 {
        let millis = u64::try_from(millis(ttl)).unwrap_or(1);
        self.now.saturating_add(span(Duration::from_millis(millis)))
    }

    fn remove(&self, before: &[u8]) -> Result<(), Fault> {
        self.writer
            .connection
            .prepare_cached("DELETE FROM key_values WHERE tenant = ?1 AND key = ?2")?
            .execute(params![self.tenant, self.key.as_bytes()])?;
        self.count(-1, -(size(before) + size(self.key.as_bytes())))
    }

    fn increment(&self, by: i64, writing: Writing) -> Answer<i64> {
        let Some(before) = self.value()? else {
            let put = self.put(None, by.to_string().as_bytes(), writing)?;
            return Ok(put.map(|()| by));
        };
        let Some(sum) = number(&before).and_then(|number| number.checked_add(by)) else {
            return Ok(Err(KeyValueError::NotANumber));
        };
        let text = sum.to_string();
        self.writer
            .connection
            .prepare_cached("UPDATE key_values SET value = ?3 WHERE tenant = ?1 AND key = ?2")?
            .execute(params![self.tenant, self.key.as_bytes(), text.as_bytes()])?;
        self.count(0, size(text.as_bytes()) - size(&before))?;
        Ok(Ok(sum))
    }
}

/// Removes some of what a tenant keeps, and the counts with the last of it.
fn forget_some(writer: &Writer, tenant: &str) -> Result<Forgotten, Fault> {
    let connection = &writer.connection;
    let mut some = connection.prepare_cached(
        "DELETE FROM key_values WHERE tenant = ?1 AND key IN
             (SELECT key FROM key_values WHERE tenant = ?1 LIMIT ?2)
         RETURNING length(key) + length(value)",
    )?;
    let sizes: Vec<i64> = some
        .query_map(params![tenant, FORGOTTEN_AT_ONCE], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let (keys, bytes) = (sizes.len() as u64, sizes.iter().sum::<i64>());
    if keys < FORGOTTEN_AT_ONCE.into() {
        connection
            .prepare_cached("DELETE FROM key_values_kept WHERE tenant = ?1")?
            .execute([tenant])?;
    } else {
        count(connection, tenant, -size(&sizes), -bytes)?;
    }
    Ok(Forgotten {
        keys,
        bytes: bytes.try_into().unwrap_or_default(),
    })
}

/// Counts keys and bytes of a tenant that came or went.
fn count(connection: &Connection, tenant: &str, keys: i64, bytes: i64) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO key_values_kept (tenant, keys, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (tenant) DO UPDATE SET keys = keys + ?2, bytes = bytes + ?3",
        )?
        .execute(params![tenant, keys, bytes])?;
    Ok(())
}

fn size<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

#[async_trait]
impl KeyValue for EmbeddedStore {
    async fn read(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let (tenant, key, now) = (tenant.clone(), key.to_owned(), self.clock.now());
        let work = move |reader: &super::read::Reader| {
            value(&reader.connection, tenant.as_str(), &key, now)
        };
        Ok(self.reader.call("read a value", work).await?)
    }

    async fn set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &[u8],
        writing: Writing,
    ) -> Result<(), KeyValueError> {
        let (tenant, key, value) = (tenant.clone(), key.to_owned(), value.to_vec());
        self.writer
            .call("set a value", move |writer| {
                let place = Place::new(writer, tenant.as_str(), &key)?;
                place.put(place.value()?.as_deref(), &value, writing)
            })
            .await?
    }

    async fn remove(&self, tenant: &TenantId, key: &str) -> Result<bool, KeyValueError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        let work = move |writer: &Writer| {
            let place = Place::new(writer, tenant.as_str(), &key)?;
            let before = place.value()?;
            if let Some(before) = &before {
                place.remove(before)?;
            }
            Ok(before.is_some())
        };
        Ok(self.writer.call("remove a value", work).await?)
    }

    async fn increment(
        &self,
        tenant: &TenantId,
        key: &str,
        by: i64,
        writing: Writing,
    ) -> Result<i64, KeyValueError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.writer
            .call("add to a value", move |writer| {
                Place::new(writer, tenant.as_str(), &key)?.increment(by, writing)
            })
            .await?
    }

    async fn compare_and_swap(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        writing: Writing,
    ) -> Result<bool, KeyValueError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        let (expected, value) = (expected.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.writer
            .call("swap a value", move |writer| {
                let place = Place::new(writer, tenant.as_str(), &key)?;
                let before = place.value()?;
                if before != expected {
                    return Ok(Ok(false));
                }
                match (&before, &value) {
                    (_, Some(value)) => {
                        let put = place.put(before.as_deref(), value, writing)?;
                        return Ok(put.map(|()| true));
                    }
                    (Some(before), None) => place.remove(before)?,
                    (None, None) => {}
                }
                Ok(Ok(true))
            })
            .await?
    }

    async fn forget(&self, tenant: &TenantId) -> Result<Forgotten, KeyValueError> {
        let mut forgotten = Forgotten::default();
        loop {
            let tenant = tenant.clone();
            let step = self
                .writer
                .call("forget values", move |writer| {
                    forget_some(writer, tenant.as_str())
                })
                .await?;
            forgotten.keys += step.keys;
            forgotten.bytes += step.bytes;
            if step.keys < FORGOTTEN_AT_ONCE.into() {
                return Ok(forgotten);
            }
        }
    }
}
