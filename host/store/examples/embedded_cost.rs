//! What a delivery costs the embedded store in processor time, on its way from enqueueing through a lease
//! to its recorded success, in batches and side by side as a host does it; and how long a file that holds
//! them all takes to open.
//!
//! `cargo run --release -p wasmhook-store --example embedded_cost -- [DELIVERIES] [FOLDER]`
//!
//! Compare processor times of runs in one folder only: what a sync costs is up to the disk.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use wasmhook_core::EventDraft;
use wasmhook_store::conformance::{succeeded, to};
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::{EventDeliveries, LeaseRequest, Recorded, Store};

/// Deliveries of a run unless told otherwise.
const DELIVERIES: usize = 40_000;
/// Events of one call of a producer.
const PUSHED: usize = 500;
/// What a worker asks for, what a recorder writes at once, and what is in flight for an endpoint.
const BATCH: usize = 128;
/// Ticks per second of `/proc/self/task/*/stat`: 100 on every Linux that we know of (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments
        .next()
        .map_or(DELIVERIES, |count| count.parse().unwrap());
    let folder = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("wasmhook-embedded-cost-{}", std::process::id())),
        PathBuf::from,
    );
    let open = Instant::now();
    let store = Arc::new(open_at(&folder));
    println!("opened in {:?}", open.elapsed());
    let (before, start) = (ticks(), Instant::now());
    let kept = store.backlog().await.unwrap().succeeded;
    println!("{kept} kept; counted in {:?}", start.elapsed());
    tokio::join!(
        produce(&store, usize::try_from(kept).unwrap(), count),
        work(&store, count)
    );
    let took = start.elapsed();
    let mut sum = 0.0;
    for (name, ticks) in ticks() {
        let used = ticks - before.get(&name).copied().unwrap_or(0.0);
        let each = per_delivery(used, count);
        sum += each;
        println!("{name:>16} {each:6.2} µs of processor time per delivery");
    }
    println!("{:>16} {sum:6.2} µs; {took:?} in all", "together");
    let close = Instant::now();
    drop(store);
    println!("closed in {:?}", close.elapsed());
}

fn open_at(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedConfig {
        path: folder.to_owned(),
        host: true,
    })
    .unwrap()
}

async fn produce(store: &Arc<EmbeddedStore>, from: usize, count: usize) {
    let payload = format!("{{\"filler\":\"{}\"}}", "x".repeat(1009));
    let mut number = from;
    while number < from + count {
        let next = (number + PUSHED).min(from + count);
        let batch: Vec<EventDeliveries> = (number..next).map(|n| pushed(n, &payload)).collect();
        store.enqueue(&batch).await.unwrap();
        number = next;
    }
}

fn pushed(number: usize, payload: &str) -> EventDeliveries {
    let draft = EventDraft {
        id: format!("evt_{number}"),
        tenant: "bench".to_owned(),
        event_type: "bench.event".to_owned(),
        payload: payload.to_owned().into(),
        ..EventDraft::default()
    };
    to(&draft.accept(Timestamp::now(), 1 << 20).unwrap(), &["main"])
}

/// Leases, and has recorded what it leased, while more is leased.
async fn work(store: &Arc<EmbeddedStore>, count: usize) {
    let places = Arc::new(Semaphore::new(4 * BATCH));
    let (ended, mut endings) = mpsc::channel(4 * BATCH);
    let recorder = {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut gathered = Vec::new();
            while endings.recv_many(&mut gathered, BATCH).await > 0 {
                let (leased, permits): (Vec<_>, Vec<_>) = gathered.drain(..).unzip();
                let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
                let recorded = store.record(&outcomes).await.unwrap();
                assert!(recorded.iter().all(|one| *one == Recorded::Written));
                drop(permits);
            }
        })
    };
    let mut left = count;
    while left > 0 {
        let mut permits = vec![Arc::clone(&places).acquire_owned().await.unwrap()];
        while permits.len() < BATCH.min(left)
            && let Ok(permit) = Arc::clone(&places).try_acquire_owned()
        {
            permits.push(permit);
        }
        let request = LeaseRequest {
            max: permits.len(),
            duration: Duration::from_mins(1),
            max_per_endpoint: BATCH,
        };
        let leased = store.lease(&request).await.unwrap().leased;
        left -= leased.len();
        let idle = leased.len() < request.max;
        for pair in leased.into_iter().zip(permits) {
            ended.send(pair).await.unwrap();
        }
        if idle && left > 0 {
            store.wait_for_work(Duration::from_secs(1)).await.unwrap();
        }
    }
    drop(ended);
    recorder.await.unwrap();
}

/// Seconds of processor time of each thread so far, by its name.
fn ticks() -> BTreeMap<String, f64> {
    let mut ticks = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (name, rest) = stat.rsplit_once(')').unwrap();
        let name = name.split_once('(').unwrap().1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let used: f64 = [11, 12]
            .map(|field| fields[field].parse::<f64>().unwrap())
            .iter()
            .sum();
        *ticks.entry(name).or_insert(0.0) += used / TICKS_PER_SECOND;
    }
    ticks
}

fn per_delivery(seconds: f64, count: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a measurement are far below 2^53"
    )]
    let count = count as f64;
    seconds * 1e6 / count
}
