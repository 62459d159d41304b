//! What a delivery costs Redis.

use std::time::Instant;

use wasmhook_core::Payload;
use wasmhook_store::Store as _;
use wasmhook_store::conformance::{event, succeeded, to};
use wasmhook_testing::{Durability, RedisServer};

use crate::support::{request, store};

/// A measurement, not a test: `cargo test --release -p wasmhook-store --test redis -- --ignored
/// --nocapture what_a_delivery_costs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_delivery_costs() {
    const TOTAL: usize = 16_384;
    for size in [1, 16, 128] {
        let server = RedisServer::start_with(Durability::EverySecond, &[]).unwrap();
        let store = store(&server).await;
        let before = cpu_seconds(&server);
        let mut parts = [0.0; 3];
        let start = Instant::now();
        let total = if size == 1 { TOTAL / 8 } else { TOTAL };
        for round in 0..total / size {
            let batch: Vec<_> = (0..size)
                .map(|n| {
                    let tenant = format!("tenant{}", n % 8);
                    let mut item = to(&event(&tenant, &format!("evt_{round}_{n}")), &["main"]);
                    let payload = format!("\"{}\"", "x".repeat(1022));
                    item.event.payload = Payload::new(payload.into_bytes()).unwrap();
                    item
                })
                .collect();
            let a = Instant::now();
            store.enqueue(&batch).await.unwrap();
            let b = Instant::now();
            let mut ten = request(size);
            ten.max_per_endpoint = 1000;
            let leased = store.lease(&ten).await.unwrap().leased;
            let c = Instant::now();
            assert_eq!(leased.len(), size);
            let outcomes: Vec<_> = leased.into_iter().map(succeeded).collect();
            store.record(&outcomes).await.unwrap();
            parts[0] += (b - a).as_secs_f64();
            parts[1] += (c - b).as_secs_f64();
            parts[2] += c.elapsed().as_secs_f64();
        }
        let each = |seconds: f64| seconds * 1e6 / f64::from(u32::try_from(total).unwrap());
        println!(
            "batch {size}: {:.1} µs CPU of Redis per delivery; wall {:.1} µs = enqueue {:.1} + lease {:.1} + record {:.1}",
            each(cpu_seconds(&server) - before),
            each(start.elapsed().as_secs_f64()),
            each(parts[0]),
            each(parts[1]),
            each(parts[2]),
        );
    }
}

/// The processor time that the server has used.
fn cpu_seconds(server: &RedisServer) -> f64 {
    let info: String = server.ask(&["INFO", "cpu"]).unwrap();
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(*name, "used_cpu_sys" | "used_cpu_user"))
        .map(|(_, value)| value.trim().parse::<f64>().unwrap())
        .sum()
}
