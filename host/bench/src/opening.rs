//! How long the embedded store's file takes to open, and to give the first work, with few deliveries in it and
//! with ten million.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wasmhook_store::embedded::{EmbeddedConfig, EmbeddedStore};
use wasmhook_store::{LeaseRequest, Store as _};

use crate::queue::event;
use crate::results::Results;

/// Deliveries that wait in the files compared.
const FEW: usize = 1_000;
const MANY: usize = 10_000_000;
/// Deliveries of an event, events of one call, and tenants.
const ENDPOINTS: usize = 10;
const BATCH: usize = 200;
const TENANTS: usize = 100;
/// How often each file is opened; the last time counts, when what opens it is warm.
const OPENED: usize = 3;

/// Fills the files, and opens them.
pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    for (name, deliveries) in [("few", FEW), ("10m", MANY)] {
        let folder = tempfile::Builder::new()
            .prefix("wasmhook-bench-")
            .tempdir()?;
        let store = open(folder.path())?;
        fill(&store, deliveries).await?;
        let began = Instant::now();
        drop(store);
        results.set(
            &format!("embedded_close_{name}_s"),
            began.elapsed().as_secs_f64(),
        );
        for _ in 0..OPENED {
            let began = Instant::now();
            let store = open(folder.path())?;
            let opened = began.elapsed();
            let request = LeaseRequest {
                max: 1,
                duration: Duration::from_secs(60),
                max_per_endpoint: 1,
            };
            let leased = store.lease(&request).await?.leased;
            anyhow::ensure!(leased.len() == 1, "nothing was leased");
            results.set(&format!("embedded_open_{name}_s"), opened.as_secs_f64());
            results.set(
                &format!("embedded_first_lease_{name}_s"),
                began.elapsed().as_secs_f64(),
            );
        }
    }
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedConfig {
        path: folder.to_owned(),
        host: true,
    })
    .context("the embedded store cannot be opened")
}

async fn fill(store: &EmbeddedStore, deliveries: usize) -> anyhow::Result<()> {
    let endpoints: Vec<String> = (0..ENDPOINTS).map(|n| format!("main{n}")).collect();
    let mut made = 0;
    while made < deliveries / ENDPOINTS {
        let batch: Vec<_> = (0..BATCH.min(deliveries / ENDPOINTS - made))
            .map(|_| {
                made += 1;
                let tenant = format!("tenant{}", made % TENANTS);
                event(&tenant, made, &endpoints, "{\"total\":12.5}")
            })
            .collect::<anyhow::Result<_>>()?;
        store.enqueue(&batch).await?;
    }
    Ok(())
}
