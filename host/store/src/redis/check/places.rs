//! Where deliveries are in the queue: lanes, the waiting set, leases.

use std::collections::HashSet;

use super::{Check, Suspect};
use crate::check::Finding;
use crate::error::StoreError;
use crate::redis::codec;
use wasmhook_core::{DeliveryId, DeliveryState, TenantId};

/// Lanes in one call.
const LANES: usize = 500;
/// Entries and members in one call.
const ENTRIES: usize = 500;
/// Suspects in one call.
const SUSPECTS: usize = 100;
/// From so many suspects on, lanes are read again before any is judged: most have only moved.
const MANY: usize = 50;
/// What was lost is due again no sooner than in a millisecond for each of so many that were lost, so
/// that lanes do not grow while many are looked for in them.
const LOST_PER_MS: usize = 10;

/// The tenant, the endpoint, and the lane's first form.
fn parts(lane: &str) -> Option<(&str, &str)> {
    let (tenant, endpoint) = lane.split_once('\0')?;
    Some((tenant, endpoint.trim_end_matches('\0')))
}

/// The delivery id in an entry of a lane.
fn id_of(entry: &str) -> Option<&str> {
    match entry.strip_prefix('-') {
        Some(id) => Some(id),
        None => entry.get(codec::STAMP..),
    }
}

/// How many entries at the end of `now` were at the front of `before`, which was read just after them
/// in the lane: what is pushed to the end moves all others towards the front.
fn overlap(before: &[String], now: &[String]) -> usize {
    let Some(last) = now.last() else { return 0 };
    let Some(place) = before.iter().position(|entry| entry == last) else {
        return 0;
    };
    let count = place + 1;
    if now.ends_with(&before[..count]) {
        count
    } else {
        0
    }
}

impl Check<'_> {
    /// Checks that lanes with work are in the rings.
    pub(super) async fn lanes(&mut self, shard: usize) -> Result<(), StoreError> {
        let lanes = std::mem::take(&mut self.shards[shard].lanes);
        for lanes in lanes.chunks(LANES) {
            let mut call = self.store.call("check_lanes", shard);
            call.arg(self.mend());
            call.arg(&self.store.channel).arg(&self.store.me).arg(lanes);
            let mut reply = self.run("check_lanes", &call).await?;
            let mut any = false;
            while let Some(lane) = reply.text() {
                let (tenant, endpoint) = parts(&lane).ok_or_else(|| self.unexpected())?;
                let mended = self.request.repair;
                self.report
                    .found(Finding::Unserved, tenant, endpoint, mended);
                any = true;
            }
            if any && self.request.repair {
                self.store.outlook.work(shard);
            }
        }
        self.shards[shard].lanes = lanes;
        Ok(())
    }

    /// Reads the lanes of a shard.
    pub(super) async fn entries(&mut self, shard: usize) -> Result<(), StoreError> {
        for lane in std::mem::take(&mut self.shards[shard].lanes) {
            let mut last: i64 = -1;
            let mut before: Vec<String> = Vec::new();
            loop {
                let mut call = self.store.call("check_entries", shard);
                call.arg(&lane).arg(last).arg(ENTRIES);
                let mut reply = self.run("check_entries", &call).await?;
                let count = reply.int().and_then(|count| usize::try_from(count).ok());
                let count = count.ok_or_else(|| self.unexpected())?;
                let mut entries = Vec::with_capacity(count);
                for _ in 0..count {
                    entries.push(reply.text().ok_or_else(|| self.unexpected())?);
                }
                while let Some(entry) = reply.text() {
                    self.suspect(shard, &lane, &entry);
                }
                let new = count - overlap(&before, &entries);
                for entry in &entries[..new] {
                    self.due(shard, &lane, entry);
                }
                if count < ENTRIES {
                    break;
                }
                last -= i64::try_from(count).unwrap_or(i64::MAX);
                before = entries;
            }
        }
        Ok(())
    }

    fn due(&mut self, shard: usize, lane: &str, entry: &str) {
        let (Some((tenant, _)), Some(id)) = (parts(lane), id_of(entry)) else {
            return;
        };
        let hash = self.hash(&[tenant, id]);
        self.report.looked.due += 1;
        if !self.shards[shard].due.insert(hash) {
            self.suspect(shard, lane, entry);
        }
    }

    fn suspect(&mut self, shard: usize, lane: &str, entry: &str) {
        let (Some((tenant, endpoint)), Some(id)) = (parts(lane), id_of(entry)) else {
            return;
        };
        self.shards[shard].suspects.push(Suspect {
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            endpoint: endpoint.to_owned(),
            entry: entry.to_owned(),
        });
    }

    /// Checks the members of the waiting set (`w`) or of the leases (`l`).
    pub(super) async fn members(
        &mut self,
        shard: usize,
        kind: &'static str,
    ) -> Result<(), StoreError> {
        let key = format!("{}{kind}", self.store.keys.shard(shard));
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("ZSCAN");
            command.arg(&key).arg(&cursor).arg("COUNT").arg(ENTRIES);
            let (next, found): (String, Vec<(String, f64)>) = self.query("ZSCAN", &command).await?;
            match kind {
                "w" => self.report.looked.waiting += found.len() as u64,
                _ => self.report.looked.leased += found.len() as u64,
            }
            if !found.is_empty() {
                let mut call = self.store.call("check_members", shard);
                call.arg(kind);
                for (member, _) in &found {
                    call.arg(member);
                }
                let mut reply = self.run("check_members", &call).await?;
                while let Some(member) = reply.text() {
                    let mut parts = member.split('\0');
                    let tenant = parts.next().unwrap_or_default().to_owned();
                    let id = parts.next_back().unwrap_or_default().to_owned();
                    let endpoint = parts.next().unwrap_or_default().to_owned();
                    self.shards[shard].suspects.push(Suspect {
                        tenant,
                        id,
                        endpoint,
                        entry: String::new(),
                    });
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Judges the suspects of a shard, and mends.
    pub(super) async fn judge(&mut self, shard: usize) -> Result<(), StoreError> {
        let mut suspects = std::mem::take(&mut self.shards[shard].suspects);
        suspects.sort_unstable();
        suspects.dedup();
        if suspects.len() >= MANY {
            self.look_again(shard, &mut suspects).await?;
        }
        let pause = suspects.len() / LOST_PER_MS;
        let mut rest = suspects.as_slice();
        let mut told: Option<&Suspect> = None;
        while !rest.is_empty() {
            let (these, _) = rest.split_at(rest.len().min(SUSPECTS));
            let due = self.due_times(these).await?;
            let mut call = self.store.call("judge", shard);
            call.arg(self.mend()).arg(&self.store.channel).arg(pause);
            for (suspect, due) in these.iter().zip(due) {
                call.arg(&suspect.tenant).arg(&suspect.id);
                call.arg(&suspect.endpoint).arg(&suspect.entry).arg(due);
            }
            let mut reply = self.run("judge", &call).await?;
            let judged = reply.len();
            if judged == 0 || judged > these.len() {
                return Err(self.unexpected());
            }
            for suspect in &these[..judged] {
                let said = reply.text().ok_or_else(|| self.unexpected())?;
                let (verdict, sequence) = said.split_at_checked(1).unwrap_or_default();
                let finding = match verdict {
                    "L" => Finding::Lost,
                    "D" => Finding::Doubled,
                    "S" => Finding::Stray,
                    "O" => Finding::Sequence,
                    _ => continue,
                };
                if !sequence.is_empty() {
                    self.shards[shard].sequences.push(sequence.to_owned());
                }
                // It may be suspected for each of its places.
                if told.is_some_and(|told| told.tenant == suspect.tenant && told.id == suspect.id) {
                    continue;
                }
                told = Some(suspect);
                let mended = self.request.repair;
                self.report
                    .found(finding, &suspect.tenant, &suspect.id, mended);
            }
            rest = &rest[judged..];
        }
        Ok(())
    }

    /// Reads the suspects' lanes once more and drops who was in none but is now.
    async fn look_again(
        &mut self,
        shard: usize,
        suspects: &mut Vec<Suspect>,
    ) -> Result<(), StoreError> {
        let mut lanes: Vec<String> = suspects
            .iter()
            .filter(|suspect| suspect.entry.is_empty())
            .flat_map(|suspect| {
                let lane = format!("{}\0{}", suspect.tenant, suspect.endpoint);
                [format!("{lane}\0"), lane]
            })
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        let mut seen = HashSet::new();
        for lane in lanes {
            let key = format!("{}q:{lane}", self.store.keys.shard(shard));
            let Some((tenant, _)) = parts(&lane) else {
                continue;
            };
            let mut last: i64 = -1;
            loop {
                let step = i64::try_from(ENTRIES).unwrap_or(i64::MAX);
                let mut command = redis::cmd("LRANGE");
                command.arg(&key).arg(last - step + 1).arg(last);
                let entries: Vec<String> = self.query("LRANGE", &command).await?;
                let ids = entries.iter().filter_map(|entry| id_of(entry));
                seen.extend(ids.map(|id| self.hash(&[tenant, id])));
                if entries.len() < ENTRIES {
                    break;
                }
                last -= step;
            }
        }
        suspects.retain(|suspect| {
            let hash = self.hash(&[&suspect.tenant, &suspect.id]);
            !suspect.entry.is_empty() || !seen.contains(&hash)
        });
        Ok(())
    }

    /// When these are due by their records, in milliseconds; 0 for at once.
    async fn due_times(&self, suspects: &[Suspect]) -> Result<Vec<i64>, StoreError> {
        let ids = |suspect: &Suspect| {
            let tenant = TenantId::new(&suspect.tenant).ok()?;
            Some((tenant, DeliveryId::new(&suspect.id).ok()?))
        };
        let names: Vec<_> = suspects.iter().map(ids).collect();
        let keys = names.iter().flatten();
        let keys = keys.map(|(tenant, id)| self.store.keys.delivery(tenant, id.as_str()));
        let mut records = self.store.mget(keys).await?.into_iter();
        let due = |name: &Option<(TenantId, DeliveryId)>| {
            let (tenant, id) = name.as_ref()?;
            let (delivery, _) = codec::unpack_record(tenant, id, &records.next()??).ok()?;
            let waits = delivery.state == DeliveryState::Failed || delivery.is_scheduled();
            waits.then(|| delivery.next_at.as_millisecond())
        };
        Ok(names
            .iter()
            .map(due)
            .map(Option::unwrap_or_default)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_a_push_moved_into_view_again_is_told() {
        assert_eq!(overlap(&[], &words("a b c")), 0);
        assert_eq!(overlap(&words("d e f"), &words("a b c")), 0);
        assert_eq!(overlap(&words("d e f"), &words("b c d")), 1);
        assert_eq!(overlap(&words("d e f"), &words("c d e")), 2);
        // Twice in the lane is not the same as seen twice.
        assert_eq!(overlap(&words("d e f"), &words("a b e")), 0);
    }

    #[test]
    fn lanes_and_entries_are_taken_apart() {
        assert_eq!(parts("acme\0main"), Some(("acme", "main")));
        assert_eq!(parts("acme\0main\0"), Some(("acme", "main")));
        assert_eq!(id_of("-whdel_1"), Some("whdel_1"));
        assert_eq!(id_of("1790000000000000whdel_1"), Some("whdel_1"));
        assert_eq!(id_of("short"), None);
    }
}
