//! How late scheduled events arrive while a million deliveries wait for later, in Redis and in the embedded store.

use anyhow::Context as _;
use jiff::Timestamp;
use wasmhook_testing::{Durability, RedisServer};

use crate::receiver::PUSHED_AT;
use crate::results::{Results, percentile};
use crate::scenario::PATIENCE;
use crate::system::{Host, Receiver, Tenant};

/// Deliveries that wait for later, and tenants that share them.
const WAITING: i64 = 1_000_000;
const TENANTS: i64 = 10;
/// How much later than now in milliseconds; then one is due in each.
const LATER: i64 = 3_600_000;
/// Events that become due one by one, or all in the same millisecond, as measured.
const DUE: i64 = 1_000;
/// How far apart they are one by one, in milliseconds.
const APART: i64 = 20;
/// Between a push and the first of them, in milliseconds: time enough to push them all.
const AHEAD: i64 = 3_000;
/// Events pushed in one call.
const BATCH: usize = 500;

pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    let redis = RedisServer::start_with(Durability::EverySecond, &[])
        .context("cannot start a Redis server")?;
    beside_waiting("redis", Some(&redis.url()), results).await?;
    beside_waiting("embedded", None, results).await
}

async fn beside_waiting(
    store: &str,
    redis: Option<&str>,
    results: &mut Results,
) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let tenants: Vec<_> = (0..TENANTS)
        .map(|number| Tenant::new(tenant(number), &receiver.url))
        .collect();
    let producer = Producer {
        host: Host::start(redis, &tenants).await?,
        client: reqwest::Client::builder().no_proxy().build()?,
    };
    let later = now_ms() + LATER;
    producer
        .schedule("later", (0..WAITING).map(|number| later + number))
        .await?;
    let first = now_ms() + AHEAD;
    let one_by_one = (0..DUE).map(|number| first + APART * number);
    let late = producer.lateness(&receiver, "one", one_by_one).await?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let key = format!("delayed_{store}_{name}_ms");
        results.set(&key, percentile(&late, share));
    }
    let at = now_ms() + AHEAD;
    let together = (0..DUE).map(|_| at);
    let late = producer.lateness(&receiver, "together", together).await?;
    let key = format!("delayed_{store}_together_max_ms");
    results.set(&key, percentile(&late, 1.0));
    producer.host.process.stop().await?;
    receiver.process.stop().await
}

/// Pushes scheduled events over HTTP.
struct Producer {
    host: Host,
    client: reqwest::Client,
}

impl Producer {
    /// Schedules an event for each of these times, in milliseconds since 1970.
    async fn schedule(&self, name: &str, due: impl Iterator<Item = i64>) -> anyhow::Result<()> {
        let due: Vec<i64> = due.collect();
        for (batch, due) in due.chunks(BATCH).enumerate() {
            let lines = due.iter().enumerate();
            let body: Vec<_> = lines
                .map(|(n, due)| line(name, batch * BATCH + n, *due))
                .collect::<anyhow::Result<_>>()?;
            let request = self
                .client
                .post(format!("{}/v1/events", self.host.url))
                .header("content-type", "application/x-ndjson")
                .body(body.join("\n"));
            let status = request.send().await?.status();
            anyhow::ensure!(status == 202, "events were answered with {status}");
        }
        Ok(())
    }

    /// Does the same and waits for them; how late each arrived, in milliseconds and in order.
    async fn lateness(
        &self,
        receiver: &Receiver,
        name: &str,
        due: impl Iterator<Item = i64>,
    ) -> anyhow::Result<Vec<f64>> {
        receiver.reset().await?;
        self.schedule(name, due).await?;
        let count = u64::try_from(DUE)?;
        let mut late = receiver.wait_for(count, PATIENCE).await?.late_ms;
        late.sort_by(f64::total_cmp);
        let early = late.first().copied().unwrap_or(f64::NAN);
        anyhow::ensure!(early >= 0.0, "an event arrived {early} ms late");
        Ok(late)
    }
}

/// An event that is due at this time, and says so to the receiver.
fn line(name: &str, number: usize, due: i64) -> anyhow::Result<String> {
    let at = Timestamp::from_millisecond(due)?;
    let tenant = tenant(i64::try_from(number)? % TENANTS);
    let due_ns = std::str::from_utf8(PUSHED_AT)?;
    Ok(format!(
        "{{\"tenant\":\"{tenant}\",\"type\":\"bench.event\",\"id\":\"{name}_{number}\",\"deliver_at\":\"{at}\",\
         \"payload\":{{{due_ns}{due}000000\"}}}}"
    ))
}

fn tenant(number: i64) -> String {
    format!("tenant{number}")
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
