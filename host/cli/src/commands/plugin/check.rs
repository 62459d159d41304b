//! `wasmhook plugin check`

use std::path::Path;

use serde::Serialize;
use wasmhook_runtime::{CheckReport, Services};

use super::{Compiling, bytes, must_exist, refused, runtime, whole};
use crate::config::Config;
use crate::output;

/// Checks one component file.
pub(crate) async fn check(config: &Config, file: &Path, json: bool) -> anyhow::Result<()> {
    must_exist(file)?;
    let checked = Checked::examine(config, file).await?;
    if json {
        output::json(&checked)?;
    } else {
        checked.print();
    }
    checked.conclude(file)
}

/// What is said about a component.
#[derive(Serialize)]
pub(super) struct Checked {
    /// The plugin's, if the file lay in a tenant's folder.
    #[serde(skip)]
    name: String,
    digest: String,
    bytes: usize,
    adapted: bool,
    contract_version: String,
    exports: Vec<String>,
    imports: Vec<CheckedImport>,
    compile_ms: Option<u64>,
    instance: Option<InstanceCost>,
    refused: Option<String>,
}

#[derive(Serialize)]
struct CheckedImport {
    name: String,
    granted: bool,
    empty: bool,
}

/// What starting a fresh instance takes.
#[derive(Serialize)]
struct InstanceCost {
    start_us: u64,
    cpu_us: u64,
    memory_bytes: usize,
}

impl Checked {
    /// Looks at a component, compiles it and starts it.
    pub(super) async fn examine(config: &Config, file: &Path) -> anyhow::Result<Self> {
        let _shown = Compiling::show(file);
        let report = runtime(config, Services::default())?
            .check(file)
            .await
            .map_err(|error| refused(file, &error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self::of(&report, name.into_owned()))
    }

    /// An error if the host would refuse it.
    pub(super) fn conclude(&self, file: &Path) -> anyhow::Result<()> {
        match &self.refused {
            None => Ok(()),
            Some(reason) => Err(refused(file, reason)),
        }
    }

    fn of(report: &CheckReport, name: String) -> Self {
        let exports = report.outline.exports;
        Self {
            name,
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
                    empty: import.is_empty(),
                })
                .collect(),
            compile_ms: report.compile_time.map(|time| whole(time.as_millis())),
            instance: report.start.map(|start| InstanceCost {
                start_us: whole(start.time.as_micros()),
                cpu_us: whole(start.cpu.as_micros()),
                memory_bytes: start.memory,
            }),
            refused: report.refusal.as_ref().map(ToString::to_string),
        }
    }

    /// When the host calls an export.
    fn called_when(&self, export: &str) -> String {
        match export {
            "resolve" => "once for each event".to_owned(),
            "transform" => "for each attempt, before it is signed".to_owned(),
            "sign" => {
                let name = &self.name;
                format!("for endpoints with profile = \"plugin\" and signer = \"{name}\"")
            }
            _ => "for each answer of a receiver".to_owned(),
        }
    }

    pub(super) fn print(&self) {
        output::line(format!("digest    {}", self.digest));
        output::line(format!("size      {}", bytes(self.bytes)));
        if self.adapted {
            output::line(
                "kind      core module for WASI preview 1, made a component when it is loaded",
            );
        }
        output::line(format!(
            "contract  wasmhook:plugin@{}",
            self.contract_version
        ));
        for (index, export) in self.exports.iter().enumerate() {
            let label = if index == 0 { "exports" } else { "" };
            output::line(format!(
                "{label:<10}{export} ({})",
                self.called_when(export)
            ));
        }
        for (index, import) in self.imports.iter().enumerate() {
            let label = if index == 0 { "imports" } else { "" };
            let granted = match (import.granted, import.empty) {
                (true, false) => "granted",
                (true, true) => "nothing behind it",
                (false, _) => "NOT GRANTED",
            };
            output::line(format!("{label:<10}{} ({granted})", import.name));
        }
        if let Some(time) = self.compile_ms {
            output::line(format!("compiled  in {time} ms"));
        }
        if let Some(cost) = &self.instance {
            output::line(format!(
                "instance  fresh: {} µs to start ({} µs of processor time), {} of memory",
                cost.start_us,
                cost.cpu_us,
                bytes(cost.memory_bytes)
            ));
        }
        if self.refused.is_none() {
            output::line("verdict   the host would serve it");
        }
    }
}
