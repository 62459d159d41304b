//! The key-value store on Redis: `lua/kv.lua`, called on the shard of its tenant.

use async_trait::async_trait;
use wasmhook_core::TenantId;

use super::RedisStore;
use super::functions::Call;
use super::reply::Reply;
use crate::kv::{Forgotten, KeyValue, KeyValueError, KeyValueQuota, Writing, millis};

impl RedisStore {
    fn on_key(&self, name: &'static str, tenant: &TenantId, key: &str) -> Call {
        let mut call = self.call(name, self.keys.shard_of(tenant));
        call.arg(tenant.as_str()).arg(key);
        call
    }

    /// Makes a call that writes; whether it did.
    async fn write_key(
        &self,
        name: &'static str,
        call: &Call,
        quota: KeyValueQuota,
    ) -> Result<(bool, Reply), KeyValueError> {
        let mut reply = self.run(name, call).await?;
        match reply.int() {
            Some(done @ (0 | 1)) => Ok((done == 1, reply)),
            Some(-1) => Err(KeyValueError::TooManyKeys(quota.keys)),
            Some(-2) => Err(KeyValueError::TooManyBytes(quota.bytes)),
            Some(-3) => Err(KeyValueError::NotANumber),
            _ => Err(self.link.unexpected(name).into()),
        }
    }
}

fn add(call: &mut Call, writing: Writing) {
    call.arg(writing.ttl.map_or(0, millis))
        .arg(writing.quota.keys)
        .arg(writing.quota.bytes);
}

fn optional(call: &mut Call, value: Option<&[u8]>) {
    call.arg(u8::from(value.is_some()))
        .arg(value.unwrap_or_default());
}

/// For calls that no quota can refuse.
const NO_QUOTA: KeyValueQuota = KeyValueQuota { keys: 0, bytes: 0 };

#[async_trait]
impl KeyValue for RedisStore {
    async fn read(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let call = self.on_key("kv_get", tenant, key);
        let mut reply = self.run("kv_get", &call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let value = reply
            .bytes()
            .ok_or_else(|| self.link.unexpected("kv_get"))?;
        Ok(Some(value.to_vec()))
    }

    async fn set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &[u8],
        writing: Writing,
    ) -> Result<(), KeyValueError> {
        let mut call = self.on_key("kv_set", tenant, key);
        call.arg(value);
        add(&mut call, writing);
        self.write_key("kv_set", &call, writing.quota).await?;
        Ok(())
    }

    async fn remove(&self, tenant: &TenantId, key: &str) -> Result<bool, KeyValueError> {
        let call = self.on_key("kv_remove", tenant, key);
        Ok(self.write_key("kv_remove", &call, NO_QUOTA).await?.0)
    }

    async fn increment(
        &self,
        tenant: &TenantId,
        key: &str,
        by: i64,
        writing: Writing,
    ) -> Result<i64, KeyValueError> {
        let mut call = self.on_key("kv_increment", tenant, key);
        call.arg(by);
        add(&mut call, writing);
        let (_, mut reply) = self.write_key("kv_increment", &call, writing.quota).await?;
        let sum = reply.text().and_then(|text| text.parse().ok());
        Ok(sum.ok_or_else(|| self.link.unexpected("kv_increment"))?)
    }

    async fn compare_and_swap(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        writing: Writing,
    ) -> Result<bool, KeyValueError> {
        let mut call = self.on_key("kv_swap", tenant, key);
        optional(&mut call, expected);
        optional(&mut call, value);
        add(&mut call, writing);
        Ok(self.write_key("kv_swap", &call, writing.quota).await?.0)
    }

    async fn forget(&self, tenant: &TenantId) -> Result<Forgotten, KeyValueError> {
        let mut call = self.call("kv_forget", self.keys.shard_of(tenant));
        call.arg(tenant.as_str());
        let mut reply = self.run("kv_forget", &call).await?;
        let mut next = || Some(reply.int()?.try_into().unwrap_or_default());
        let forgotten = next().zip(next());
        forgotten
            .map(|(keys, bytes)| Forgotten { keys, bytes })
            .ok_or_else(|| self.link.unexpected("kv_forget").into())
    }
}
