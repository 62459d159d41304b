//! What the records say, and whether the lists and indexes over them agree.

use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::attempt::{Attempt, Outcome};
use wasmhook_core::{Conclusion, DeliveryId, ErrorClass, TenantId};

use super::{Check, Suspect};
use crate::check::Finding;
use crate::error::StoreError;
use crate::redis::codec;

/// Records in one call.
const RECORDS: usize = 250;
/// Members of an index, or lines of finished deliveries, read at once.
const LINES: usize = 500;

/// What a function said of a record.
struct Said {
    member: String,
    letters: String,
    endpoint: String,
    attempt: String,
    stamp: String,
}

impl Said {
    fn tenant(&self) -> &str {
        self.member.split('\0').next().unwrap_or_default()
    }

    fn id(&self) -> &str {
        self.member.split('\0').nth(1).unwrap_or_default()
    }
}

impl Check<'_> {
    /// Checks the members of an index.
    pub(super) async fn index(
        &mut self,
        shard: usize,
        letter: &'static str,
        tenant: &str,
        key: &str,
    ) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("ZSCAN");
            command.arg(key).arg(&cursor).arg("COUNT").arg(LINES);
            let (next, found): (String, Vec<(String, f64)>) = self.query("ZSCAN", &command).await?;
            if !found.is_empty() {
                let mut call = self.store.call("check_index", shard);
                call.arg(self.mend()).arg(letter).arg(tenant);
                for (id, _) in &found {
                    call.arg(id);
                }
                let mut reply = self.run("check_index", &call).await?;
                while let Some(id) = reply.text() {
                    let mended = self.request.repair;
                    self.report.found(Finding::Index, tenant, &id, mended);
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Checks every record.
    pub(super) async fn records(&mut self) -> Result<(), StoreError> {
        self.walk(|check, shard, said| check.record(shard, &said))
            .await
    }

    /// Has every record looked at, and hands on what there is to say of it.
    async fn walk(
        &mut self,
        mut each: impl FnMut(&mut Self, usize, Said),
    ) -> Result<(), StoreError> {
        let pattern = self.store.keys.pattern("d");
        let mut gathered: Vec<Vec<String>> = vec![Vec::new(); self.shards.len()];
        for shard in &mut self.shards {
            shard.counted = [0; 3];
        }
        for holder in self.store.link.holders().await? {
            let mut cursor = "0".to_owned();
            loop {
                let (next, keys) = self.scan(&holder, &cursor, &pattern).await?;
                for key in keys {
                    let Ok(key) = String::from_utf8(key) else {
                        continue;
                    };
                    let named = self.store.keys.shard_named(&key);
                    let Some((shard, rest)) = named else { continue };
                    if let Some(member) = rest.strip_prefix("d:")
                        && member.contains('\0')
                    {
                        gathered[shard].push(member.to_owned());
                    }
                }
                for (shard, members) in gathered.iter_mut().enumerate() {
                    while members.len() >= RECORDS {
                        let some = members.split_off(members.len() - RECORDS);
                        self.ask(shard, &some, &mut each).await?;
                    }
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        for (shard, members) in gathered.iter().enumerate() {
            if !members.is_empty() {
                self.ask(shard, members, &mut each).await?;
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        shard: usize,
        members: &[String],
        each: &mut impl FnMut(&mut Self, usize, Said),
    ) -> Result<(), StoreError> {
        let mut call = self.store.call("check_records", shard);
        call.arg(self.mend()).arg(&self.shards[shard].cut);
        call.arg(members);
        let mut reply = self.run("check_records", &call).await?;
        for place in 0..3 {
            let count = reply.int().and_then(|count| u64::try_from(count).ok());
            self.shards[shard].counted[place] += count.ok_or_else(|| self.unexpected())?;
        }
        while !reply.is_empty() {
            let mut text = || reply.text().ok_or_else(|| self.unexpected());
            let said = Said {
                member: text()?,
                letters: text()?,
                endpoint: text()?,
                attempt: text()?,
                stamp: text()?,
            };
            each(self, shard, said);
        }
        Ok(())
    }

    fn record(&mut self, shard: usize, said: &Said) {
        for letter in said.letters.chars() {
            let (finding, mended) = match letter {
                'u' => (Finding::Unreadable, false),
                'e' => {
                    let names = (said.tenant().to_owned(), said.id().to_owned());
                    self.shards[shard].eventless.push(names);
                    continue;
                }
                'n' => {
                    let delivery = (said.stamp.parse().unwrap_or_default(), said.id().to_owned());
                    let unlisted = &mut self.shards[shard].unlisted;
                    let tenant = unlisted.entry(said.tenant().to_owned());
                    tenant.or_default().push(delivery);
                    continue;
                }
                'i' => (Finding::Index, self.request.repair),
                'd' => {
                    let hash = self.hash(&[said.tenant(), said.id()]);
                    let shard = &mut self.shards[shard];
                    if !shard.due.contains(&hash) {
                        shard.suspects.push(Suspect {
                            tenant: said.tenant().to_owned(),
                            id: said.id().to_owned(),
                            endpoint: said.endpoint.clone(),
                            entry: String::new(),
                        });
                    }
                    continue;
                }
                _ => {
                    let line = self.hash(&[said.tenant(), said.id(), &said.attempt]);
                    let shard = &mut self.shards[shard];
                    shard.lines.insert(line);
                    match shard.finished.get_mut(said.tenant()) {
                        Some(count) => *count += 1,
                        None => {
                            shard.finished.insert(said.tenant().to_owned(), 1);
                        }
                    }
                    continue;
                }
            };
            self.report.found(finding, said.tenant(), said.id(), mended);
        }
    }

    /// Tells open deliveries without an event, and makes dead letters of them.
    pub(super) async fn bury(&mut self, shard: usize) -> Result<(), StoreError> {
        let mut eventless = std::mem::take(&mut self.shards[shard].eventless);
        eventless.sort_unstable();
        eventless.dedup();
        for (tenant, id) in eventless {
            let mended = self.request.repair && self.buried(shard, &tenant, &id).await?;
            self.report
                .found(Finding::EventMissing, &tenant, &id, mended);
        }
        Ok(())
    }

    async fn buried(&self, shard: usize, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let (Ok(tenant), Ok(id)) = (TenantId::new(tenant), DeliveryId::new(id)) else {
            return Ok(false);
        };
        let Some((bytes, record)) = self.store.read(&tenant, &id).await? else {
            return Ok(false);
        };
        let now = Timestamp::now();
        let attempt = Attempt::refused(
            record.delivery.attempt + 1,
            now,
            Duration::ZERO,
            Outcome::ValidationError,
            ErrorClass::Request,
            false,
            "the event is gone from the store, so there is nothing to send",
        );
        let dead = record
            .delivery
            .concluded(&attempt, Conclusion::DeadLetter, now);
        let number = dead.attempt.to_string();
        let mut call = self.store.call("bury", shard);
        call.arg(tenant.as_str()).arg(id.as_str());
        call.arg(dead.event_id.as_str()).arg(bytes.as_ref());
        call.arg(codec::pack_record(&dead, &record.attempts, Some(&attempt)));
        call.parts(&[b"\0", number.as_bytes(), b"\0", id.as_str().as_bytes()]);
        Ok(self.run("bury", &call).await?.int() == Some(1))
    }

    /// Checks that retention will find all finished deliveries. Their lines are read after the records,
    /// and a line goes only with its record.
    pub(super) async fn finished(&mut self) -> Result<(), StoreError> {
        for shard in 0..self.shards.len() {
            let [open, succeeded, dead] = self.shards[shard].counted;
            self.report.looked.open += open;
            self.report.looked.deliveries += open + succeeded + dead;
            let finished = std::mem::take(&mut self.shards[shard].finished);
            for tenant in finished.keys() {
                self.lines(shard, tenant).await?;
            }
            self.shards[shard].finished = finished;
        }
        if self.shards.iter().all(|shard| shard.lines.is_empty()) {
            return Ok(());
        }
        let counted: Vec<_> = self.shards.iter().map(|shard| shard.counted).collect();
        let mut missing = Vec::new();
        self.walk(|check, shard, said| {
            let line = check.hash(&[said.tenant(), said.id(), &said.attempt]);
            if check.shards[shard].lines.remove(&line) {
                missing.push((shard, said));
            }
        })
        .await?;
        for (shard, counted) in self.shards.iter_mut().zip(counted) {
            shard.counted = counted;
        }
        for (shard, said) in missing {
            let mut call = self.store.call("check_line", shard);
            call.arg(self.mend());
            call.arg(said.tenant()).arg(said.id()).arg(&said.attempt);
            if self.run("check_line", &call).await?.int() == Some(1) {
                let mended = self.request.repair;
                self.report
                    .found(Finding::Unretained, said.tenant(), said.id(), mended);
            }
        }
        Ok(())
    }

    /// Reads the lines of a tenant's finished deliveries, from the end to the front as lanes are read.
    async fn lines(&mut self, shard: usize, tenant: &str) -> Result<(), StoreError> {
        let key = format!("{}f:{tenant}", self.store.keys.shard(shard));
        let step = i64::try_from(LINES).unwrap_or(i64::MAX);
        let mut last: i64 = -1;
        loop {
            let mut command = redis::cmd("LRANGE");
            command.arg(&key).arg(last - step + 1).arg(last);
            let lines: Vec<String> = self.query("LRANGE", &command).await?;
            for line in &lines {
                let mut parts = line.split('\0').skip(1);
                if let (Some(attempt), Some(id)) = (parts.next(), parts.next()) {
                    let hash = self.hash(&[tenant, id, attempt]);
                    self.shards[shard].lines.remove(&hash);
                }
            }
            if lines.len() < LINES {
                return Ok(());
            }
            last -= step;
        }
    }
}
