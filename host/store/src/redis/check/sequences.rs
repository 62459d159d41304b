//! Sequences: that it is the turn of one delivery in each, and that the others wait in their places.

use super::Check;
use crate::check::Finding;
use crate::error::StoreError;

/// Sequences in one call.
const SEQUENCES: usize = 100;
/// Members in one call.
const MEMBERS: usize = 500;

/// Tenant and endpoint of a sequence.
fn owner(sequence: &str) -> (&str, &str) {
    let mut parts = sequence.split('\0');
    let tenant = parts.next().unwrap_or_default();
    (tenant, parts.next().unwrap_or_default())
}

impl Check<'_> {
    /// Checks what waits for its turn.
    pub(super) async fn behind(&mut self, shard: usize) -> Result<(), StoreError> {
        let sequences = std::mem::take(&mut self.shards[shard].sequences);
        for sequence in &sequences {
            let key = format!("{}g:{sequence}", self.store.keys.shard(shard));
            let mut cursor = "0".to_owned();
            loop {
                let mut command = redis::cmd("ZSCAN");
                command.arg(&key).arg(&cursor).arg("COUNT").arg(MEMBERS);
                let (next, found): (String, Vec<(String, f64)>) =
                    self.query("ZSCAN", &command).await?;
                if !found.is_empty() {
                    let mut call = self.store.call("check_behind", shard);
                    call.arg(self.mend()).arg(sequence);
                    for (id, _) in &found {
                        call.arg(id);
                    }
                    let mut reply = self.run("check_behind", &call).await?;
                    let count = reply.int().and_then(|count| u64::try_from(count).ok());
                    self.report.looked.behind += count.ok_or_else(|| self.unexpected())?;
                    while let Some(id) = reply.text() {
                        let mended = self.request.repair;
                        let (tenant, _) = owner(sequence);
                        self.report.found(Finding::Stray, tenant, &id, mended);
                    }
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        self.shards[shard].sequences = sequences;
        Ok(())
    }

    /// Checks whose turn it is. Comes after the deliveries were judged, which may have put some back into
    /// their sequences.
    pub(super) async fn turns(&mut self, shard: usize) -> Result<(), StoreError> {
        let mut sequences = std::mem::take(&mut self.shards[shard].sequences);
        sequences.sort_unstable();
        sequences.dedup();
        for some in sequences.chunks(SEQUENCES) {
            let mut call = self.store.call("check_sequences", shard);
            call.arg(self.mend());
            call.arg(&self.store.channel).arg(&self.store.me).arg(some);
            let mut reply = self.run("check_sequences", &call).await?;
            let mut any = false;
            while let Some(sequence) = reply.text() {
                let (tenant, endpoint) = owner(&sequence);
                let mended = self.request.repair;
                self.report
                    .found(Finding::Sequence, tenant, endpoint, mended);
                any = true;
            }
            if any && self.request.repair {
                self.store.outlook.work(shard);
            }
        }
        self.shards[shard].sequences = sequences;
        Ok(())
    }
}
