//! What a delivery costs the queue on Redis, whatever else waits: by the depth of the backlog, by the
//! number of tenants, and in memory.
//!
//! Two stores on one Redis, one that enqueues and one that leases and records, as on two hosts: what
//! the first has at hand is no help to the second, so every depth pays the same way.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Conclusion, Delivery, EndpointId, Event, EventDraft, delivery};
use wasmhook_store::redis::{RedisConfig, RedisStore};
use wasmhook_store::{EventDeliveries, LeaseRequest, Outcome, Store as _};
use wasmhook_testing::{Durability, RedisServer};

use crate::results::{Results, percentile};
use crate::{cpu, scenario};

/// Deliveries in one call.
const BATCH: usize = 128;
/// Deliveries of one part of a measurement, and how many parts there are.
const PART: usize = 6_400;
const PARTS: usize = 9;
/// The backlogs compared.
const SHALLOW: usize = 1_000;
const DEEP: usize = 5_000_000;
/// The numbers of tenants compared, and what waits in both cases: ten deliveries of each of the many.
const FEW: usize = 10;
const MANY: usize = 100_000;
const WAITING: usize = 1_000_000;
/// Deliveries whose memory is measured.
const KEPT: usize = 50_000;

/// A Redis with a producer's and a worker's view of it.
struct Bed {
    redis: RedisServer,
    producer: RedisStore,
    worker: RedisStore,
    made: usize,
}

impl Bed {
    async fn start() -> anyhow::Result<Self> {
        // Rewriting the log of gigabytes would fall into some measurements and not into others.
        let settings = ["--auto-aof-rewrite-percentage", "0"];
        let redis = RedisServer::start_with(Durability::EverySecond, &settings)
            .context("cannot start a Redis server")?;
        let connect = || RedisStore::connect(RedisConfig::new(redis.url()));
        let (producer, worker) = (connect().await?, connect().await?);
        Ok(Self {
            redis,
            producer,
            worker,
            made: 0,
        })
    }

    /// Enqueues events for `tenants` tenants in turn, each to so many endpoints.
    async fn enqueue(
        &mut self,
        count: usize,
        tenants: usize,
        endpoints: usize,
        payload: &str,
    ) -> anyhow::Result<()> {
        let endpoints: Vec<String> = (0..endpoints).map(|n| format!("main{n}")).collect();
        let mut left = count;
        while left > 0 {
            let batch: Vec<EventDeliveries> = (0..left.min(BATCH))
                .map(|_| {
                    self.made += 1;
                    let tenant = format!("tenant{}", self.made % tenants);
                    event(&tenant, self.made, &endpoints, payload)
                })
                .collect::<anyhow::Result<_>>()?;
            left -= batch.len();
            self.producer.enqueue(&batch).await?;
        }
        Ok(())
    }

    /// Leases and records up to `count` deliveries as accepted.
    async fn deliver(&self, count: usize) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let request = LeaseRequest {
                max: left.min(BATCH),
                duration: Duration::from_secs(60),
                max_per_endpoint: BATCH,
            };
            let leased = self.worker.lease(&request).await?.leased;
            anyhow::ensure!(!leased.is_empty(), "{left} deliveries could not be leased");
            left -= leased.len();
            let now = Timestamp::now();
            let outcomes: Vec<Outcome> = leased
                .into_iter()
                .map(|leased| {
                    let number = leased.delivery.attempt + 1;
                    let attempt = Attempt::answered(number, now, Duration::from_millis(1), 204);
                    let delivery = leased
                        .delivery
                        .concluded(&attempt, Conclusion::Succeeded, now);
                    Outcome {
                        leased,
                        delivery,
                        attempt,
                    }
                })
                .collect();
            self.worker.record(&outcomes).await?;
        }
        Ok(())
    }

    /// Processor seconds of Redis and of this process.
    fn used(&self) -> anyhow::Result<f64> {
        let redis = self.redis.pid().context("Redis ended early")?;
        Ok(cpu::seconds(redis)? + cpu::seconds(std::process::id())?)
    }

    /// Bytes that Redis uses.
    fn memory(&self) -> anyhow::Result<f64> {
        let info: String = self.redis.ask(&["INFO", "memory"])?;
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:"))
            .and_then(|bytes| bytes.trim().parse().ok())
            .context("Redis does not say what it uses")
    }
}

pub(crate) fn event(
    tenant: &str,
    number: usize,
    endpoints: &[String],
    payload: &str,
) -> anyhow::Result<EventDeliveries> {
    let now = Timestamp::now();
    let draft = EventDraft {
        id: format!("evt_{number}"),
        tenant: tenant.to_owned(),
        event_type: "bench.event".to_owned(),
        payload: payload.to_owned().into(),
        ..EventDraft::default()
    };
    let event: Event = draft.accept(now, 1 << 20)?;
    let deliveries = endpoints
        .iter()
        .map(|endpoint| {
            let endpoint = EndpointId::new(endpoint)?;
            let id = delivery::default_id(&event.tenant_id, &event.id, &endpoint);
            Ok(Delivery::pending(id, &event, endpoint, None, now))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(EventDeliveries {
        event,
        deliveries,
        extends: false,
    })
}

/// Cost of a delivery's whole way through the queue with a thousand waiting, and with millions.
pub(crate) async fn backlog(results: &mut Results) -> anyhow::Result<()> {
    let payload = "{\"total\":12.5}";
    let mut beds = Vec::new();
    for depth in [SHALLOW, DEEP] {
        let mut bed = Bed::start().await?;
        bed.enqueue(depth, FEW, 1, payload).await?;
        beds.push(bed);
    }
    let costs = in_turn(&mut beds, async |bed, count| {
        for _ in 0..count / BATCH {
            bed.enqueue(BATCH, FEW, 1, payload).await?;
            bed.deliver(BATCH).await?;
        }
        Ok(())
    })
    .await?;
    results.set("backlog_shallow_cpu_us", costs[0]);
    results.set("backlog_deep_cpu_us", costs[1]);
    results.set("backlog_cost_ratio", costs[1] / costs[0]);
    Ok(())
}

/// Cost of leasing and recording a delivery when it is one of few tenants, and of very many.
pub(crate) async fn tenants(results: &mut Results) -> anyhow::Result<()> {
    let payload = "{\"total\":12.5}";
    let mut beds = Vec::new();
    for (tenants, waiting) in [(FEW, WAITING), (MANY, WAITING), (MANY, MANY)] {
        let mut bed = Bed::start().await?;
        bed.enqueue(waiting, tenants, 1, payload).await?;
        beds.push(bed);
    }
    let costs = in_turn(&mut beds, async |bed, count| bed.deliver(count).await).await?;
    results.set("tenants_few_cpu_us", costs[0]);
    results.set("tenants_many_cpu_us", costs[1]);
    results.set("tenants_cost_ratio", costs[1] / costs[0]);
    // With a single delivery of each there is nothing to share the cost of a tenant.
    results.set("tenants_sparse_cpu_us", costs[2]);
    results.set("tenants_sparse_cost_ratio", costs[2] / costs[0]);
    Ok(())
}

/// Processor time of a delivery in microseconds, for each of the beds, of which each does a part of the work in turn:
/// a machine that others slow down slows all of them alike. The middle of the parts of each, after a first one in
/// which connections and caches become warm.
async fn in_turn(
    beds: &mut [Bed],
    work: impl AsyncFn(&mut Bed, usize) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut costs = vec![Vec::new(); beds.len()];
    for part in 0..=PARTS {
        for (bed, costs) in beds.iter_mut().zip(&mut costs) {
            let before = bed.used()?;
            work(bed, PART).await?;
            if part > 0 {
                costs.push(per_delivery(bed.used()? - before, PART));
            }
        }
    }
    Ok(costs
        .into_iter()
        .map(|mut costs| {
            costs.sort_by(f64::total_cmp);
            percentile(&costs, 0.5)
        })
        .collect())
}

/// Bytes of Redis per delivery that waits and per one that is finished, with 1 KiB of payload per event.
pub(crate) async fn memory(results: &mut Results) -> anyhow::Result<()> {
    for (name, endpoints) in [("", 1), ("_fanout10", 10)] {
        let mut bed = Bed::start().await?;
        let empty = bed.memory()?;
        let payload = scenario::payload();
        bed.enqueue(KEPT / endpoints, FEW, endpoints, &payload)
            .await?;
        let kept = scenario::float(KEPT as u64);
        results.set(
            &format!("redis_bytes_waiting{name}"),
            (bed.memory()? - empty) / kept,
        );
        bed.deliver(KEPT).await?;
        results.set(
            &format!("redis_bytes_finished{name}"),
            (bed.memory()? - empty) / kept,
        );
    }
    Ok(())
}

fn per_delivery(seconds: f64, count: usize) -> f64 {
    seconds * 1e6 / scenario::float(count as u64)
}

/// Leaves so many due deliveries of `tenant0`, `tenant1` and so on, to the endpoint `main`.
pub(crate) async fn fill(redis: &RedisServer, count: usize, tenants: usize) -> anyhow::Result<()> {
    let store = RedisStore::connect(RedisConfig::new(redis.url())).await?;
    for batch in 0..count / 500 {
        let events: Vec<_> = (batch * 500..(batch + 1) * 500)
            .map(|number| {
                let tenant = format!("tenant{}", number % tenants);
                event(&tenant, number, &["main".to_owned()], "{\"total\":12.5}")
            })
            .collect::<anyhow::Result<_>>()?;
        store.enqueue(&events).await?;
    }
    Ok(())
}
