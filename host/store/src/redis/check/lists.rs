//! Lists of all deliveries of a tenant, and how many of them are finished.

use std::collections::HashMap;

use super::Check;
use crate::check::Finding;
use crate::error::StoreError;

/// Entries or lines in one call.
const SOME: usize = 500;
/// Fields of a hash in one call.
const FIELDS: usize = 500;

/// Stamps and ids of an entry of a tenant's stream; none of what no version has written.
fn listed(id: &str, fields: &[String]) -> Vec<(u64, String)> {
    let first = id.split('-').next().and_then(|stamp| stamp.parse().ok());
    let (Some(first), Some(ids)) = (first, fields.get(1)) else {
        return Vec::new();
    };
    (first..).zip(ids.split('\0').map(str::to_owned)).collect()
}

impl Check<'_> {
    /// Tells deliveries that their tenant's list lacks, and makes the lists of these tenants anew.
    pub(super) async fn lists(&mut self, shard: usize) -> Result<(), StoreError> {
        for (tenant, missing) in std::mem::take(&mut self.shards[shard].unlisted) {
            let mended = self.request.repair && self.relist(shard, &tenant, &missing).await?;
            for (_, id) in &missing {
                self.report.found(Finding::Unlisted, &tenant, id, mended);
            }
        }
        Ok(())
    }

    /// A stream takes nothing in between, so a new one is written beside it, of what is in it and what is
    /// missing; then it takes over what was enqueued meanwhile and the place of the old. False when another
    /// repair is at it.
    async fn relist(
        &self,
        shard: usize,
        tenant: &str,
        missing: &[(u64, String)],
    ) -> Result<bool, StoreError> {
        let mut all = missing.to_vec();
        let key = format!("{}i:{tenant}", self.store.keys.shard(shard));
        let mut from = "-".to_owned();
        loop {
            let mut command = redis::cmd("XRANGE");
            command.arg(&key).arg(&from).arg("+").arg("COUNT").arg(SOME);
            let entries: Vec<(String, Vec<String>)> = self.query("XRANGE", &command).await?;
            for (id, fields) in &entries {
                all.extend(listed(id, fields));
            }
            match entries.last() {
                Some((last, _)) if entries.len() == SOME => from = format!("({last}"),
                _ => break,
            }
        }
        all.sort_unstable();
        all.dedup_by_key(|(stamp, _)| *stamp);
        let mut last = String::new();
        for some in all.chunks(SOME) {
            let mut call = self.store.call("relist", shard);
            call.arg(tenant).arg(&last);
            for (stamp, id) in some {
                call.arg(*stamp).arg(id);
            }
            let mut reply = self.run("relist", &call).await?;
            last = reply.text().ok_or_else(|| self.unexpected())?;
            if last.is_empty() {
                return Ok(false);
            }
        }
        loop {
            let mut call = self.store.call("relisted", shard);
            call.arg(tenant).arg(&last);
            let mut reply = self.run("relisted", &call).await?;
            last = reply.text().ok_or_else(|| self.unexpected())?;
            match last.as_str() {
                "" => return Ok(false),
                "done" => return Ok(true),
                _ => {}
            }
        }
    }

    /// Compares how many deliveries of a tenant are finished, which retention goes by, with the records.
    pub(super) async fn tallies(&mut self, shard: usize) -> Result<(), StoreError> {
        let mut counted = std::mem::take(&mut self.shards[shard].finished);
        let mut wrong = Vec::new();
        let key = format!("{}m", self.store.keys.shard(shard));
        let mut cursor = "0".to_owned();
        let mut said: HashMap<String, String> = HashMap::new();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&key).arg(&cursor).arg("COUNT").arg(FIELDS);
            let (next, fields): (String, Vec<(String, String)>) =
                self.query("HSCAN", &command).await?;
            said.extend(fields);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        for (tenant, number) in said {
            let count = counted.remove(&tenant).unwrap_or_default();
            if number != count.to_string() {
                wrong.push(tenant);
            }
        }
        wrong.extend(counted.into_keys());
        for tenant in wrong {
            if self.tally(shard, &tenant).await? {
                let mended = self.request.repair;
                self.report
                    .found(Finding::Counter, &tenant, "finished", mended);
            }
        }
        Ok(())
    }

    /// Counts the finished deliveries of one tenant by their lines; whether another number was kept. While
    /// deliveries are finished or removed it cannot be told.
    async fn tally(&self, shard: usize, tenant: &str) -> Result<bool, StoreError> {
        let (mut from, mut count) = (0, 0);
        let mut state: Option<String> = None;
        loop {
            let mut call = self.store.call("check_finished", shard);
            call.arg(tenant).arg(from).arg(SOME);
            let mut reply = self.run("check_finished", &call).await?;
            let mut number = || {
                let number = reply.int().and_then(|number| usize::try_from(number).ok());
                number.ok_or_else(|| self.unexpected())
            };
            let (lines, finished) = (number()?, number()?);
            let now = reply.text().ok_or_else(|| self.unexpected())?;
            if state.get_or_insert_with(|| now.clone()) != &now {
                return Ok(false);
            }
            from += lines;
            count += finished;
            if lines < SOME {
                break;
            }
        }
        let mut call = self.store.call("count_finished", shard);
        call.arg(self.mend()).arg(tenant).arg(state).arg(count);
        let mut reply = self.run("count_finished", &call).await?;
        Ok(reply.int() == Some(1))
    }
}
