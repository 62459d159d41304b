//! What one call of a plugin costs, on a fresh instance and on a reused one.
//!
//! `cargo run --release -p wasmhook-runtime --example call_cost [COMPONENT.wasm] [CALLS]`; without a
//! component, the `redact` plugin of this repository, which is to be built first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wasmhook_runtime::{EndpointView, EventView, PluginHost, PluginHostConfig, Reuse};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let component = arguments.next().map_or_else(redact, PathBuf::from);
    let calls = arguments.next().map_or(Ok(20_000), |calls| calls.parse())?;
    let reused = Reuse::UpTo {
        calls: 1_000,
        seconds: 60,
    };
    for (name, reuse) in [("fresh", Reuse::Fresh), ("reused", reused)] {
        let mut times = measure(&component, reuse, calls).await?;
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 1000].0.as_nanos();
        let cpu: Duration = times.iter().map(|(_, cpu)| cpu).sum();
        let mean = cpu.as_nanos() / times.len() as u128;
        writeln(&format!(
            "{name:7} p50 {:>8} ns  p99 {:>8} ns  p99.9 {:>8} ns  mean guest cpu {mean:>8} ns",
            at(500),
            at(990),
            at(999),
        ));
    }
    Ok(())
}

/// Wall time and processor time of each call.
async fn measure(
    component: &Path,
    reuse: Reuse,
    calls: usize,
) -> Result<Vec<(Duration, Duration)>, Box<dyn std::error::Error>> {
    let tenants = tempfile::tempdir()?;
    let folder = tenants.path().join("acme/plugins");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(component, folder.join("10-plugin.wasm"))?;
    std::fs::write(
        folder.join("10-plugin.toml"),
        "[config]\nfields = \"email,card\"\n",
    )?;
    let config = PluginHostConfig {
        reuse,
        ..PluginHostConfig::new(tenants.path())
    };
    let host = PluginHost::new(config)?;
    host.rescan().await;
    host.settled().await;
    let plugins = host.tenant("acme");
    let plugin = plugins
        .transforms
        .first()
        .ok_or_else(|| format!("{:?}", plugins.unready))?;
    let payload = payload();
    let event = EventView {
        id: "evt_1",
        tenant: "acme",
        event_type: "invoice.paid",
        occurred_at: "2026-01-02T03:04:05Z",
        payload: payload.as_bytes(),
    };
    let endpoint = EndpointView {
        id: "ep_1",
        url: "https://example.test/hook",
    };
    let mut times = Vec::with_capacity(calls);
    for call in 0..calls + calls / 10 {
        let began = Instant::now();
        let done = plugin.transform(&event, &endpoint).await?;
        // The first tenth warms up.
        if call >= calls / 10 {
            times.push((began.elapsed(), done.cpu));
        }
    }
    Ok(times)
}

/// About 1 KiB of JSON.
fn payload() -> String {
    let lines: Vec<String> = (0..8)
        .map(|n| {
            format!(
                r#"{{"sku":"sku-{n:05}","title":"A thing of some kind","quantity":{n},"price":"{n}.90","tax":0.19}}"#
            )
        })
        .collect();
    format!(
        r#"{{"invoice":"in_00017","customer":{{"name":"Ada","email":"ada@example.test","card":"4242"}},"currency":"EUR","total":1234567890123456789.10,"lines":[{}]}}"#,
        lines.join(",")
    )
}

fn redact() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/target/wasm32-wasip2/release/redact.wasm")
}

#[allow(clippy::print_stdout, reason = "it is what the example is for")]
fn writeln(line: &str) {
    println!("{line}");
}
