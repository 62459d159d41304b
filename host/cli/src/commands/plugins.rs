//! `wasmhook plugins …`

use std::path::Path;

use serde::{Deserialize, Serialize};
use wasmhook_runtime::Services;

use crate::config::Config;
use crate::exit::{Coded, Exit};
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
            let calls = plugin.calls;
            Listed {
                tenant: plugin.tenant.to_string(),
                name: plugin.name.to_string(),
                state: state.to_owned(),
                digest: plugin.digest.map(|digest| digest.to_string()),
                since: jiff::Timestamp::try_from(plugin.since).unwrap_or_default(),
                exports: exports.names().map(str::to_owned).collect(),
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
        let plugins = host::plugins(config, Services::default())?;
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

/// Checks one component file.
pub(crate) async fn check(config: &Config, file: &Path, json: bool) -> anyhow::Result<()> {
    let plugins = host::plugins(config, Services::default())?;
    let refused = |reason: String| {
        Coded::new(
            Exit::Refused,
            format!("{} would be refused: {reason}", file.display()),
        )
    };
    let report = plugins
        .check(file)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let outline = CheckOutput::of(&report);
    if json {
        output::json(&outline)?;
    } else {
        outline.print();
    }
    match report.refusal {
        None => Ok(()),
        Some(error) => Err(refused(error.to_string())),
    }
}

#[derive(Serialize)]
struct CheckOutput {
    digest: String,
    bytes: usize,
    adapted: bool,
    contract_version: String,
    exports: Vec<String>,
    imports: Vec<CheckedImport>,
    compile_ms: Option<u64>,
    refused: Option<String>,
}

#[derive(Serialize)]
struct CheckedImport {
    name: String,
    granted: bool,
}

impl CheckOutput {
    fn of(report: &wasmhook_runtime::CheckReport) -> Self {
        let exports = report.outline.exports;
        Self {
            digest: report.digest.to_string(),
            bytes: report.bytes,
            adapted: report.outline.adapted,
            contract_version: report.contract.to_owned(),
            exports: exports.names().map(str::to_owned).collect(),
            imports: report
                .outline
                .imports
                .iter()
                .map(|import| CheckedImport {
                    name: import.name.clone(),
                    granted: import.granted,
                })
                .collect(),
            compile_ms: report.compile_time.map(|time| whole(time.as_millis())),
            refused: report.refusal.as_ref().map(ToString::to_string),
        }
    }

    fn print(&self) {
        output::line(format!("digest    {}", self.digest));
        output::line(format!("size      {} bytes", self.bytes));
        if self.adapted {
            output::line(
                "kind      core module for WASI preview 1, made a component when it is loaded",
            );
        }
        output::line(format!(
            "contract  wasmhook:plugin@{}",
            self.contract_version
        ));
        output::line(format!("exports   {}", self.exports.join(", ")));
        for (index, import) in self.imports.iter().enumerate() {
            let label = if index == 0 { "imports" } else { "" };
            let granted = if import.granted {
                "granted"
            } else {
                "NOT GRANTED"
            };
            output::line(format!("{label:<10}{} ({granted})", import.name));
        }
        if let Some(time) = self.compile_ms {
            output::line(format!("compiled  in {time} ms"));
        }
        if self.refused.is_none() {
            output::line("verdict   the host would serve it");
        }
    }
}
