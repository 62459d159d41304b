//! `wasmhook plugins …`

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::{host, output};

/// One plugin, in JSON and in the host's `GET /v1/plugins`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) digest: Option<String>,
    pub(crate) since: jiff::Timestamp,
    pub(crate) exports: Vec<String>,
    /// Calls of the version that serves, since it does, on the host that was asked.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    /// Processor time of these calls, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Time on the wall of one of them, in microseconds.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    /// The last one that failed.
    pub(crate) last_error: Option<LastError>,
    /// Why what lies in the folder does not serve.
    pub(crate) refused: Option<String>,
}

/// A call that failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LastError {
    pub(crate) at: jiff::Timestamp,
    pub(crate) error: String,
}

fn whole<T: TryInto<u64>>(number: T) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

/// The plugins as a host sees them.
pub(crate) fn status(plugins: &wasmhook_runtime::PluginHost) -> Vec<Listed> {
    plugins
        .status()
        .into_iter()
        .map(|plugin| {
            let state = match plugin.state {
                wasmhook_runtime::ServingState::Serving => "serving",
                wasmhook_runtime::ServingState::Refused => "refused",
                wasmhook_runtime::ServingState::Compiling => "compiling",
            };
            let exports = plugin.exports.unwrap_or_default();
            let names = [
                (exports.resolve, "resolve"),
                (exports.transform, "transform"),
            ];
            let calls = plugin.calls;
            Listed {
                tenant: plugin.tenant.to_string(),
                name: plugin.name.to_string(),
                state: state.to_owned(),
                digest: plugin.digest.map(|digest| digest.to_string()),
                since: jiff::Timestamp::try_from(plugin.since).unwrap_or_default(),
                exports: names
                    .into_iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, name)| name.to_owned())
                    .collect(),
                calls: calls.calls,
                errors: calls.errors,
                cpu_ms: whole(calls.cpu.as_millis()),
                p50_us: calls.p50.map(|time| whole(time.as_micros())),
                p99_us: calls.p99.map(|time| whole(time.as_micros())),
                last_error: calls.last_error.map(|(at, error)| LastError {
                    at: jiff::Timestamp::try_from(at).unwrap_or_default(),
                    error,
                }),
                refused: plugin.refused,
            }
        })
        .collect()
}

/// Lists plugins: those of the host that runs on this configuration, or, when none answers, what a
/// host would make of the folder now.
pub(crate) async fn list(config: &Config, tenant: Option<&str>, json: bool) -> anyhow::Result<()> {
    let running = host::get_json::<Vec<Listed>>(config, "/v1/plugins").await;
    let is_running = running.is_some();
    let mut plugins = if let Some(plugins) = running {
        plugins
    } else {
        let plugins = host::plugins(config)?;
        plugins.rescan().await;
        plugins.settled().await;
        status(&plugins)
    };
    plugins.retain(|plugin| tenant.is_none_or(|tenant| plugin.tenant == tenant));
    if json {
        return output::json(&plugins);
    }
    let rows = plugins
        .into_iter()
        .map(|plugin| {
            [
                plugin.tenant,
                plugin.name,
                plugin.state,
                plugin
                    .digest
                    .as_deref()
                    .map(output::short)
                    .unwrap_or_default()
                    .to_owned(),
                plugin.exports.join(", "),
                output::time(plugin.since),
                plugin.calls.to_string(),
                plugin.errors.to_string(),
                format!("{} ms", plugin.cpu_ms),
                micros(plugin.p50_us),
                micros(plugin.p99_us),
                plugin
                    .last_error
                    .map(|last| format!("{} {}", output::time(last.at), last.error))
                    .unwrap_or_default(),
                plugin.refused.unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "tenant",
        "plugin",
        "state",
        "digest",
        "exports",
        "since",
        "calls",
        "errors",
        "cpu",
        "p50",
        "p99",
        "last error",
        "refused because",
    ];
    output::table(header, rows, "no plugins");
    if !is_running {
        output::line(
            "\nno host answers on this configuration; this is what one would make of the folder now",
        );
    }
    Ok(())
}

fn micros(time: Option<u64>) -> String {
    time.map(|time| format!("{time} µs")).unwrap_or_default()
}
