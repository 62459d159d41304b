//! Checking the queue's invariants and mending it, while hosts work.
//!
//! Most is looked at by functions of `lua/check/`, a few hundred things a call. Whether a due delivery
//! is in a lane can only be told by reading all lanes: they are read first, from their ends to their
//! fronts so that nothing is left out, and what is in them is kept as one 64-bit hash each. Every
//! record is then asked where it is. Deliveries move meanwhile, so whatever is not where it should be
//! is only a suspect: a function judges it, and mends it, in one atomic step.

mod lists;
mod places;
mod records;
mod sequences;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use super::RedisStore;
use super::connection::Holder;
use super::functions::Call;
use super::reply::Reply;
use crate::check::{CheckReport, CheckRequest, Finding};
use crate::error::StoreError;

/// Of the time of a gentle check, its calls take one part and it rests this many.
const RESTS: u32 = 4;
/// A shard whose last stamp is lost: every delivery is older.
const NO_STAMP: &str = "9999999999999999";

/// A delivery, or an entry of the queue, that may not be as it should.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Suspect {
    tenant: String,
    id: String,
    /// The endpoint of its record, or of the lane where it was seen.
    endpoint: String,
    /// The entry that was seen, or empty for a record that was seen nowhere.
    entry: String,
}

/// What is known of one shard.
#[derive(Default)]
struct Shard {
    /// The last stamp given out when the check began.
    cut: String,
    /// The counters when the check began: open, succeeded, dead letters.
    said: [String; 3],
    /// The same, counted.
    counted: [u64; 3],
    /// `<tenant> \0 <endpoint>`, with another zero byte for what is due again.
    lanes: Vec<String>,
    /// `<tenant> \0 <endpoint> \0 <key>`.
    sequences: Vec<String>,
    /// Hashes of what is in the lanes.
    due: HashSet<u64>,
    /// Hashes of the lines that finished deliveries should have in their tenant's.
    lines: HashSet<u64>,
    /// How many finished deliveries tenants have.
    finished: HashMap<String, u64>,
    /// Stamp and id of deliveries that the lists of their tenants lack.
    unlisted: BTreeMap<String, Vec<(u64, String)>>,
    suspects: Vec<Suspect>,
    /// Tenant and id of open deliveries without an event.
    eventless: Vec<(String, String)>,
}

/// A check under way.
struct Check<'a> {
    store: &'a RedisStore,
    request: CheckRequest,
    report: CheckReport,
    hasher: RandomState,
    shards: Vec<Shard>,
}

impl RedisStore {
    pub(super) async fn check_all(&self, request: CheckRequest) -> Result<CheckReport, StoreError> {
        let mut check = Check {
            store: self,
            request,
            report: CheckReport::default(),
            hasher: RandomState::new(),
            shards: Vec::new(),
        };
        check.shards.resize_with(self.keys.shards(), Shard::default);
        check.begin().await?;
        check.names().await?;
        for shard in 0..self.keys.shards() {
            check.lanes(shard).await?;
            check.entries(shard).await?;
            check.members(shard, "w").await?;
            check.members(shard, "l").await?;
            check.behind(shard).await?;
        }
        check.records().await?;
        check.finished().await?;
        for shard in 0..self.keys.shards() {
            check.judge(shard).await?;
            check.turns(shard).await?;
            check.bury(shard).await?;
            check.lists(shard).await?;
            check.tallies(shard).await?;
            check.flights(shard).await?;
            check.counters(shard).await?;
        }
        Ok(check.report)
    }

    pub(super) async fn claim(&self, every: Duration) -> Result<bool, StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.checked()).arg(&self.me).arg("NX");
        let millis = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        // A year is longer than anybody waits for a check.
        command.arg("PX").arg(millis.clamp(1, 366 * 86_400_000));
        let answer: Option<String> = self.link.query("SET", &command).await?;
        Ok(answer.is_some())
    }
}

impl Check<'_> {
    fn mend(&self) -> u8 {
        u8::from(self.request.repair)
    }

    fn hash(&self, parts: &[&str]) -> u64 {
        self.hasher.hash_one(parts)
    }

    fn unexpected(&self) -> StoreError {
        self.store.link.unexpected("check")
    }

    /// Rests after something that took since `start`, when the check is a gentle one.
    async fn rest(&self, start: Instant) {
        if self.request.gentle {
            tokio::time::sleep(start.elapsed() * RESTS).await;
        }
    }

    async fn run(&self, name: &'static str, call: &Call) -> Result<Reply, StoreError> {
        let start = Instant::now();
        let reply = self.store.run(name, call).await;
        self.rest(start).await;
        reply
    }

    async fn query<T: redis::FromRedisValue>(
        &self,
        name: &'static str,
        command: &redis::Cmd,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let answer = self.store.link.query(name, command).await;
        self.rest(start).await;
        answer
    }

    async fn scan(
        &self,
        holder: &Holder,
        cursor: &str,
        pattern: &str,
    ) -> Result<(String, Vec<Vec<u8>>), StoreError> {
        let start = Instant::now();
        let answer = self.store.link.scan(holder, cursor, pattern).await;
        self.rest(start).await;
        answer
    }

    /// Reads where the stamps and the counters are.
    async fn begin(&mut self) -> Result<(), StoreError> {
        for shard in 0..self.shards.len() {
            let prefix = self.store.keys.shard(shard);
            let mut last = redis::cmd("GET");
            last.arg(format!("{prefix}u"));
            let cut: Option<String> = self.query("GET", &last).await?;
            let mut counters = redis::cmd("HMGET");
            counters.arg(format!("{prefix}k")).arg(&["o", "s", "x"]);
            let said: [Option<String>; 3] = self.query("HMGET", &counters).await?;
            let here = &mut self.shards[shard];
            here.cut = cut.unwrap_or_else(|| NO_STAMP.to_owned());
            here.said = said.map(Option::unwrap_or_default);
        }
        Ok(())
    }

    /// Finds the lanes, and checks the indexes by the way.
    async fn names(&mut self) -> Result<(), StoreError> {
        let pattern = self.store.keys.pattern("qoxgI");
        for holder in self.store.link.holders().await? {
            let mut cursor = "0".to_owned();
            loop {
                let (next, keys) = self.scan(&holder, &cursor, &pattern).await?;
                for key in keys {
                    self.name(key).await?;
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        for shard in &mut self.shards {
            // The walk may have met a lane twice.
            shard.lanes.sort_unstable();
            shard.lanes.dedup();
            shard.sequences.sort_unstable();
            shard.sequences.dedup();
            self.report.looked.lanes += shard.lanes.len() as u64;
        }
        Ok(())
    }

    async fn name(&mut self, key: Vec<u8>) -> Result<(), StoreError> {
        // What no version of the queue has made is left alone.
        let Ok(key) = String::from_utf8(key) else {
            return Ok(());
        };
        let Some((shard, rest)) = self.store.keys.shard_named(&key) else {
            return Ok(());
        };
        match rest.split_once(':') {
            Some(("q", lane)) if lane.contains('\0') => {
                self.shards[shard].lanes.push(lane.to_owned());
            }
            Some(("g", sequence)) if sequence.splitn(3, '\0').count() == 3 => {
                self.shards[shard].sequences.push(sequence.to_owned());
            }
            Some(("o", tenant)) => self.index(shard, "o", tenant, &key).await?,
            Some(("x", tenant)) => self.index(shard, "x", tenant, &key).await?,
            // What a repair left that was given up.
            Some(("I", _)) if self.request.repair => {
                let mut command = redis::cmd("DEL");
                command.arg(&key);
                let _: i64 = self.query("DEL", &command).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares what is in flight with the leases.
    async fn flights(&mut self, shard: usize) -> Result<(), StoreError> {
        let mut call = self.store.call("check_flights", shard);
        call.arg(self.mend());
        call.arg(&self.store.channel).arg(&self.store.me);
        let mut reply = self.run("check_flights", &call).await?;
        while let Some(lane) = reply.text() {
            let (tenant, endpoint) = match lane.split_once('\0') {
                Some((tenant, "")) => (tenant, "all endpoints"),
                parts => parts.unwrap_or(("", &lane)),
            };
            let mended = self.request.repair;
            self.report
                .found(Finding::InFlight, tenant, endpoint, mended);
        }
        Ok(())
    }

    /// Compares the counters with what was counted.
    async fn counters(&mut self, shard: usize) -> Result<(), StoreError> {
        // While open deliveries are in no set, the sets say nothing of their number.
        let whole = self.report.findings.iter().all(|(finding, found)| {
            found.count == found.repaired || !matches!(finding, Finding::Lost | Finding::Doubled)
        });
        let reliable = match (whole, self.shards[shard].sequences.is_empty()) {
            (false, _) => "0",
            // What waits for its turn is in sequences, which come and go.
            (true, false) => "x",
            (true, true) => "1",
        };
        let mut call = self.store.call("check_counters", shard);
        call.arg(self.mend()).arg(reliable);
        for said in &self.shards[shard].said {
            call.arg(said);
        }
        for counted in self.shards[shard].counted {
            call.arg(counted);
        }
        let mut reply = self.run("check_counters", &call).await?;
        while let Some(letter) = reply.text() {
            let name = match letter.as_str() {
                "o" => "open",
                "s" => "succeeded",
                _ => "dead letters",
            };
            let subject = format!("{name} in shard {shard}");
            let mended = self.request.repair;
            self.report.found(Finding::Counter, "", &subject, mended);
        }
        Ok(())
    }
}
