//! What one call of a plugin costs, fresh and reused.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use wasmhook_runtime::{EndpointView, EventView, PluginHost, PluginHostConfig, Reuse};

use crate::results::{Results, percentile};
use crate::scenario;
use crate::system::{component, root};

/// Calls measured.
const CALLS: usize = 5_000;

/// Measures whole calls of the transforms with a 1 KiB event: the Rust one fresh and reused, and each
/// language's by the default policy.
pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    let reused = Reuse::UpTo {
        calls: 1_000_000,
        seconds: 3_600,
    };
    let rust = component("redact.wasm");
    measure_one(results, "fresh", &rust, Reuse::Fresh).await?;
    measure_one(results, "reused", &rust, reused).await?;
    measure_one(results, "rust", &rust, Reuse::default()).await?;
    for (name, language) in [("js", "javascript"), ("python", "python")] {
        let file = root().join(format!("plugins/target/components/{language}.wasm"));
        if file.is_file() {
            measure_one(results, name, &file, Reuse::default()).await?;
        } else {
            println!("the plugin in {language} is not built (cargo xtask guests --all); left out");
        }
    }
    Ok(())
}

async fn measure_one(
    results: &mut Results,
    name: &str,
    file: &Path,
    reuse: Reuse,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plugins = folder.path().join("bench/plugins");
    std::fs::create_dir_all(&plugins)?;
    std::fs::copy(file, plugins.join("10-redact.wasm"))?;
    std::fs::write(
        plugins.join("10-redact.toml"),
        "[config]\nfields = \"card\"\n",
    )?;
    let mut config = PluginHostConfig::new(folder.path());
    config.reuse = reuse;
    let host = PluginHost::new(config)?;
    host.rescan().await;
    host.settled().await;
    let tenant = host.tenant("bench");
    let plugin = tenant
        .transforms
        .first()
        .context("the sample transform did not load")?;
    let payload = scenario::payload();
    let event = EventView {
        id: "evt_1",
        tenant: "bench",
        event_type: "bench.event",
        occurred_at: "2026-01-01T00:00:00Z",
        payload: payload.as_bytes(),
    };
    let endpoint = EndpointView {
        id: "main",
        url: "https://example.com/hook",
    };
    let mut times = Vec::with_capacity(CALLS);
    for number in 0..CALLS + CALLS / 10 {
        let began = Instant::now();
        plugin.transform(&event, &endpoint).await?;
        if number >= CALLS / 10 {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    results.set(&format!("plugin_{name}_p50_us"), percentile(&times, 0.5));
    results.set(&format!("plugin_{name}_p99_us"), percentile(&times, 0.99));
    Ok(())
}
