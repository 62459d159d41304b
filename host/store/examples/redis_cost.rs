//! What a delivery costs Redis on its way from the stream through the queue to its recorded success: how long
//! each function and each command keeps Redis's one thread, and Redis's processor time.
//!
//! `cargo run --release -p wasmhook-store --example redis_cost -- [SCENARIO] [BATCH] [DELIVERIES] [TENANTS] [EACH]`
//!
//! `SCENARIO` is
//! - `plain` (the rule): events of one tenant, pushed, read, enqueued, leased and recorded batch by batch;
//! - `kept`: the same, with more kept than retention allows, so that as many are removed as are delivered;
//! - `tenants`: so many tenants (100,000) with so many deliveries of each waiting (10), of which some are leased and
//!   recorded. Compare with few tenants that have as many waiting.
//!
//! A call's time is the median of all its calls, for whatever else a machine does makes some of them longer.
//! `WASMHOOK_REDIS_SERVER` names another server program, such as a script that runs Redis under a profiler.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::EventDraft;
use wasmhook_store::conformance::{succeeded, to};
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream};
use wasmhook_store::{
    EventDeliveries, EventStream as _, LeaseRequest, Leased, Recorded, Retention, Store as _,
};
use wasmhook_testing::{Durability, RedisServer};

/// What one call is about unless told otherwise: as much as a worker leases and a recorder writes at once.
const BATCH: usize = 128;
/// Deliveries of a run unless told otherwise.
const DELIVERIES: usize = 20_000;
/// Tenants, and what waits of each, unless told otherwise.
const TENANTS: usize = 100_000;
const EACH: usize = 10;
/// Deliveries that retention keeps where it is measured.
const KEPT: usize = 20_000;
/// Ticks per second of `/proc/PID/stat`: 100 on every Linux that we know of (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().unwrap_or_else(|| "plain".to_owned());
    let mut number = |rule| arguments.next().map_or(rule, |text| text.parse().unwrap());
    let (batch, count) = (number(BATCH), number(DELIVERIES));
    let (tenants, each) = (number(TENANTS), number(EACH));
    match scenario.as_str() {
        "plain" => plain(batch, count, None).await,
        "kept" => plain(batch, count, Some(KEPT)).await,
        "tenants" => waiting(batch, count, tenants, each).await,
        other => println!("there is no scenario {other}; expected plain, kept or tenants"),
    }
}

async fn plain(batch: usize, count: usize, kept: Option<usize>) {
    let mut redis = start();
    let mut bed = Bed::connect(&redis).await;
    // What the first calls do once is not counted.
    for _ in 0..=kept.unwrap_or_default().div_ceil(batch) {
        bed.round(batch, &mut Watch::default()).await;
    }
    bed.kept = kept;
    let mut watch = Watch::on(&redis);
    for _ in 0..count.div_ceil(batch) {
        bed.round(batch, &mut watch).await;
    }
    watch.print();
    let before = processor_seconds(&redis);
    for _ in 0..count.div_ceil(batch) {
        bed.round(batch, &mut Watch::default()).await;
    }
    let used = processor_seconds(&redis) - before;
    print_processor(used, count.div_ceil(batch) * batch);
    redis.stop().unwrap();
}

async fn waiting(batch: usize, count: usize, tenants: usize, each: usize) {
    assert!(
        2 * count + 2 * batch <= tenants * each,
        "more waits than is leased"
    );
    let mut redis = start();
    let mut bed = Bed::connect(&redis).await;
    let mut drafts = Vec::new();
    for n in 0..tenants * each {
        drafts.push(draft(
            &format!("tenant{}", n % tenants),
            n,
            "{\"total\":12.5}",
        ));
        if drafts.len() == BATCH || n + 1 == tenants * each {
            let pushed: Vec<_> = drafts.drain(..).map(accepted).collect();
            bed.producer.enqueue(&pushed).await.unwrap();
        }
    }
    bed.deliver(batch, batch, &mut Watch::default()).await;
    let mut watch = Watch::on(&redis);
    bed.deliver(count, batch, &mut watch).await;
    watch.print();
    let before = processor_seconds(&redis);
    bed.deliver(count, batch, &mut Watch::default()).await;
    print_processor(processor_seconds(&redis) - before, count);
    redis.stop().unwrap();
}

/// A producer's and a worker's view of one Redis: what the first has at hand is no help to the second,
/// as on two hosts.
struct Bed {
    stream: RedisStream,
    producer: RedisStore,
    worker: RedisStore,
    made: usize,
    in_flight: Vec<Leased>,
    /// What retention leaves, if there is any.
    kept: Option<usize>,
}

fn start() -> RedisServer {
    // Rewriting the log would fall into some measurements and not into others.
    let settings = ["--auto-aof-rewrite-percentage", "0"];
    RedisServer::start_with(Durability::EverySecond, &settings).unwrap()
}

impl Bed {
    async fn connect(redis: &RedisServer) -> Self {
        let config = || RedisConfig::new(redis.url());
        Self {
            stream: RedisStream::connect(config()).await.unwrap(),
            producer: RedisStore::connect(config()).await.unwrap(),
            worker: RedisStore::connect(config()).await.unwrap(),
            made: 0,
            in_flight: Vec::new(),
            kept: None,
        }
    }

    /// One batch's whole way, by one host.
    async fn round(&mut self, batch: usize, watch: &mut Watch<'_>) {
        let drafts: Vec<_> = (self.made..self.made + batch)
            .map(|number| draft("bench", number, &payload(number)))
            .collect();
        self.made += batch;
        self.stream.push(&drafts).await.unwrap();
        watch.saw("push", batch);
        let read = self
            .stream
            .read(batch, Duration::from_secs(1))
            .await
            .unwrap();
        watch.saw("read", read.len());
        let ids: Vec<_> = read.iter().map(|entry| entry.id).collect();
        let events: Vec<_> = read
            .into_iter()
            .map(|entry| accepted(entry.draft))
            .collect();
        self.worker.enqueue(&events).await.unwrap();
        watch.saw("enqueue", batch);
        self.stream.acknowledge(&ids).await.unwrap();
        watch.saw("acknowledge", batch);
        self.deliver(batch, batch, watch).await;
        if let Some(count) = self.kept {
            let age = Duration::from_hours(1);
            let removed = self.worker.retain(&Retention { age, count }).await.unwrap();
            watch.saw("retain", removed.max(1));
        }
    }

    /// Leases and records so many deliveries as accepted, with another batch of them in flight meanwhile, as under
    /// load.
    async fn deliver(&mut self, count: usize, batch: usize, watch: &mut Watch<'_>) {
        let mut left = count;
        while left > 0 {
            let request = LeaseRequest {
                max: left.min(batch),
                duration: Duration::from_mins(1),
                max_per_endpoint: 2 * batch,
            };
            let leased = self.worker.lease(&request).await.unwrap().leased;
            assert!(!leased.is_empty(), "{left} deliveries could not be leased");
            watch.saw("lease", leased.len());
            left -= leased.len();
            let done = std::mem::replace(&mut self.in_flight, leased);
            let outcomes: Vec<_> = done.into_iter().map(succeeded).collect();
            if !outcomes.is_empty() {
                let recorded = self.worker.record(&outcomes).await.unwrap();
                assert!(recorded.iter().all(|one| *one == Recorded::Written));
                watch.saw("record", outcomes.len());
            }
        }
    }
}

/// 1 KiB that is another for each event. Lua tells strings apart by some 32 of their bytes, so payloads that are
/// nearly the same would cost more than they do in life.
fn payload(number: usize) -> String {
    let mut text = String::from("{\"filler\":\"");
    let mut state = number as u64;
    while text.len() < 1022 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let _ = write!(text, "{:08x}", state >> 32);
    }
    text.truncate(1022);
    text.push_str("\"}");
    text
}

fn draft(tenant: &str, number: usize, payload: &str) -> EventDraft {
    EventDraft {
        id: format!("evt_{number}"),
        tenant: tenant.to_owned(),
        event_type: "bench.event".to_owned(),
        payload: payload.to_owned().into(),
        ..EventDraft::default()
    }
}

fn accepted(draft: EventDraft) -> EventDeliveries {
    to(&draft.accept(Timestamp::now(), 1 << 20).unwrap(), &["main"])
}

/// Calls and microseconds of commands, by their names.
type Counts = BTreeMap<String, (f64, f64)>;

/// What Redis says of its commands, read after each step. Without a server it watches nothing.
#[derive(Default)]
struct Watch<'a> {
    redis: Option<&'a RedisServer>,
    last: Counts,
    steps: Vec<(&'static str, Step)>,
}

/// What is known of one kind of step.
#[derive(Default)]
struct Step {
    deliveries: usize,
    /// Microseconds per delivery, of each time.
    times: Vec<f64>,
    commands: Counts,
}

impl<'a> Watch<'a> {
    fn on(redis: &'a RedisServer) -> Self {
        Self {
            redis: Some(redis),
            last: command_stats(redis),
            steps: Vec::new(),
        }
    }

    /// Counts what was done since the last step as one of this name, about so many deliveries.
    fn saw(&mut self, name: &'static str, deliveries: usize) {
        let Some(redis) = self.redis else { return };
        let now = command_stats(redis);
        let place = self.steps.iter().position(|(other, _)| *other == name);
        let place = place.unwrap_or_else(|| {
            self.steps.push((name, Step::default()));
            self.steps.len() - 1
        });
        let step = &mut self.steps[place].1;
        let mut own = 0.0;
        for (command, (calls, time)) in &now {
            let (before, spent) = self.last.get(command).copied().unwrap_or_default();
            let (calls, time) = (calls - before, time - spent);
            // What asking itself takes.
            if calls == 0.0 || matches!(command.as_str(), "info" | "client|setinfo") {
                continue;
            }
            let sums = step.commands.entry(command.clone()).or_default();
            *sums = (sums.0 + calls, sums.1 + time);
            // The time of a function, or of a transaction, has in it that of its commands.
            if is_outer(name, command) {
                own += time;
            }
        }
        step.deliveries += deliveries;
        step.times.push(own / float(deliveries));
        self.last = now;
    }

    fn print(&self) {
        let mut sum = 0.0;
        for (name, step) in &self.steps {
            let mut times = step.times.clone();
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            sum += median;
            println!(
                "{name:>12} {median:6.2} µs per delivery; at best {:.2}",
                times[0]
            );
            for (command, (calls, time)) in &step.commands {
                let (calls, time) = (calls / float(times.len()), time / float(step.deliveries));
                println!("{command:>24} {calls:7.1} calls {time:6.2} µs on average");
            }
        }
        println!("{:>12} {sum:6.2} µs per delivery", "together");
    }
}

/// Whether the time of a command counts for itself, and is not part of another's.
fn is_outer(step: &str, command: &str) -> bool {
    match step {
        "push" | "read" => true,
        "acknowledge" => command == "exec",
        // What the host has not at hand is read with commands of its own.
        "lease" => matches!(command, "fcall" | "mget"),
        _ => command == "fcall",
    }
}

fn command_stats(redis: &RedisServer) -> Counts {
    let info: String = redis.ask(&["INFO", "commandstats"]).unwrap();
    info.lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(':')?;
            let field = |key: &str| -> Option<f64> {
                rest.split(',')
                    .find_map(|part| part.strip_prefix(key))?
                    .parse()
                    .ok()
            };
            Some((name.to_owned(), (field("calls=")?, field("usec=")?)))
        })
        .collect()
}

/// Seconds of processor time of Redis so far.
fn processor_seconds(redis: &RedisServer) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", redis.pid().unwrap())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = [11, 12].map(|field: usize| fields[field].parse::<f64>().unwrap());
    ticks.iter().sum::<f64>() / TICKS_PER_SECOND
}

fn print_processor(seconds: f64, deliveries: usize) {
    let each = seconds * 1e6 / float(deliveries);
    println!(
        "{:>12} {each:6.2} µs of Redis's processor time per delivery",
        "in all"
    );
}

fn float(count: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a measurement are far below 2^53"
    )]
    let count = count as f64;
    count
}
