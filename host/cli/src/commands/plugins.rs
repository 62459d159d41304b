//! `wasmhook plugins …`

use serde::{Deserialize, Serialize};
use wasmhook_runtime::{CandidateStatus, Services};

use crate::config::Config;
use crate::{host, output};

/// One plugin, in JSON and in the host's `GET /v1/plugins`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// Whether the version that serves is pinned.
    #[serde(default)]
    pub(crate) pinned: bool,
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
    /// The version that is tried out beside it.
    #[serde(default)]
    pub(crate) candidate: Option<Candidate>,
}

/// A version that is tried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) exports: Vec<String>,
    pub(crate) since: jiff::Timestamp,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) p99_us: Option<u64>,
    /// Of a shadow only.
    pub(crate) comparisons: Option<Comparisons>,
}

/// How the answers of a shadow compare with those of the version that serves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparisons {
    pub(crate) equal: u64,
    pub(crate) different: u64,
    /// Not compared, because the host was busy.
    pub(crate) left_out: u64,
    /// The latest differences: of which event, as the beginning of the SHA-256 of its id, and in what.
    pub(crate) samples: Vec<Difference>,
}

/// One difference.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) at: jiff::Timestamp,
    pub(crate) event: String,
    pub(crate) parts: Vec<String>,
}

impl Candidate {
    fn of(status: CandidateStatus) -> Self {
        let comparisons = status.comparisons.map(|compared| Comparisons {
            equal: compared.equal,
            different: compared.different,
            left_out: compared.left_out,
            samples: compared
                .samples
                .into_iter()
                .map(|sample| Difference {
                    at: jiff::Timestamp::try_from(sample.at).unwrap_or_default(),
                    event: sample.event,
                    parts: sample.parts.into_iter().map(str::to_owned).collect(),
                })
                .collect(),
        });
        Self {
            digest: status.digest.to_string(),
            exports: status.exports.names().map(str::to_owned).collect(),
            since: jiff::Timestamp::try_from(status.since).unwrap_or_default(),
            calls: status.calls.calls,
            errors: status.calls.errors,
            p99_us: status.calls.p99.map(|time| whole(time.as_micros())),
            comparisons,
        }
    }

    /// In a cell of a table, beside a version that serves with these exports.
    fn told(&self, serving: &[String]) -> String {
        let digest = output::short(&self.digest);
        let mut told = match &self.comparisons {
            Some(compared) => format!(
                "{digest}: {} equal, {} different",
                compared.equal, compared.different
            ),
            None => format!(
                "{digest}: {}, {}",
                output::count(self.calls, "call"),
                output::count(self.errors, "error")
            ),
        };
        let only_in = |one: &[String], other: &[String]| {
            let only = one.iter().filter(|name| !other.contains(name));
            only.cloned().collect::<Vec<_>>().join(", ")
        };
        for (word, names) in [
            ("adds", only_in(&self.exports, serving)),
            ("without", only_in(serving, &self.exports)),
        ] {
            if !names.is_empty() {
                told.extend(["; ", word, " ", &names]);
            }
        }
        told
    }
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
                wasmhook_runtime::ServingState::RolledBack => "rolled back",
                wasmhook_runtime::ServingState::Canary => "canary",
                wasmhook_runtime::ServingState::Shadow => "shadow",
            };
            let exports = plugin.exports.unwrap_or_default();
            let calls = plugin.calls;
            Listed {
                tenant: plugin.tenant.to_string(),
                name: plugin.name.to_string(),
                state: state.to_owned(),
                pinned: plugin.pinned,
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
                candidate: plugin.candidate.map(Candidate::of),
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
        let plugins = host::plugins(config, false, Services::default())?;
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
            let exports = plugin.exports.join(", ");
            [
                plugin.tenant,
                plugin.name,
                if plugin.pinned {
                    format!("{}, pinned", plugin.state)
                } else {
                    plugin.state
                },
                plugin
                    .digest
                    .as_deref()
                    .map(output::short)
                    .unwrap_or_default()
                    .to_owned(),
                exports,
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
                plugin
                    .candidate
                    .as_ref()
                    .map(|candidate| candidate.told(&plugin.exports))
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
        "tried out",
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
