//! What tenants may take, told to the shards that hold them.

use futures_util::future::join_all;
use wasmhook_core::{Quota, TenantId};

use super::RedisStore;
use crate::error::StoreError;

impl RedisStore {
    pub(super) async fn tell_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError> {
        let mut calls: Vec<_> = (0..self.keys.shards())
            .map(|shard| {
                let mut call = self.call("quotas", shard);
                call.arg(&self.channel).arg(&self.me);
                call
            })
            .collect();
        for (tenant, quota) in quotas {
            if quota.is_default() {
                continue;
            }
            let most = quota.max_in_flight;
            let most = most.map_or_else(String::new, |most| most.to_string());
            let call = &mut calls[self.keys.shard_of(tenant)];
            call.arg(tenant.as_str());
            call.arg(format!("{}:{most}", quota.weight.get()));
        }
        // Shards that answer are told, though others do not.
        let replies = join_all(calls.iter().map(|call| self.run("quotas", call))).await;
        let mut failed = None;
        for (shard, reply) in replies.into_iter().enumerate() {
            let mut reply = match reply {
                Ok(reply) => reply,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if reply.int().is_some_and(|changed| changed > 0) {
                self.outlook.work(shard);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
