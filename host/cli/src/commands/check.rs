//! `wasmhook config check`

use serde::Serialize;
use wasmhook_runtime::Services;

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::{host, output};

#[derive(Serialize)]
struct Checked {
    file: Option<String>,
    store: String,
    event_types: usize,
    tenants: usize,
    plugins: usize,
    problems: Vec<String>,
}

/// Reads everything that a host would read at its start, without opening the store.
pub(crate) async fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let catalog = config.catalog()?;
    let tenants = host::tenants(config)?;
    let plugins = host::plugins(config, false, Services::default())?;
    let mut problems: Vec<_> = tenants.problems().iter().map(ToString::to_string).collect();
    problems.extend(plugins.rescan().await.problems);
    plugins.settled().await;
    let status = plugins.status();
    problems.extend(status.iter().filter_map(|plugin| {
        let reason = plugin.refused.as_ref()?;
        Some(format!(
            "plugin {} of tenant {}: {reason}",
            plugin.name, plugin.tenant
        ))
    }));
    let checked = Checked {
        file: config.file.as_ref().map(|file| file.display().to_string()),
        store: format!("{:?}", config.store.kind).to_lowercase(),
        event_types: catalog.types().count(),
        tenants: tenants.ids().len(),
        plugins: status.len(),
        problems,
    };
    if json {
        output::json(&checked)?;
    } else {
        output::line(format!(
            "file         {}",
            checked
                .file
                .as_deref()
                .unwrap_or("none; defaults and environment")
        ));
        output::line(format!("store        {}", checked.store));
        output::line(format!("event types  {}", checked.event_types));
        output::line(format!("tenants      {}", checked.tenants));
        output::line(format!("plugins      {}", checked.plugins));
        for problem in &checked.problems {
            output::line(format!("problem      {problem}"));
        }
    }
    match checked.problems.len() {
        0 => Ok(()),
        count => Err(Coded::new(
            Exit::Configuration,
            format!("{} found", output::count(count, "problem")),
        )),
    }
}
