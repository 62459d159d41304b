//! The process-wide metrics: set up, summed up, and those that the binary itself knows.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use wasmhook_engine::metric;
use wasmhook_runtime::{PluginHost, PluginStatus, ServingState};

/// How often histograms are summed up.
const SUM_UP: Duration = Duration::from_secs(5);

/// Sets up the process-wide recorder of metrics.
pub(crate) fn recorder() -> Result<PrometheusHandle, BuildError> {
    let bounds = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(bounds(metric::ATTEMPT_DURATION), &metric::DURATION_BOUNDS)?
        .set_buckets_for_metric(bounds(metric::DELIVERY_DELAY), &metric::DELAY_BOUNDS)?
        .install_recorder()?;
    metric::describe();
    Ok(recorder)
}

/// Sums up what histograms were given, which would be kept value by value until somebody reads them.
pub(crate) async fn sum_up(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut turns = tokio::time::interval(SUM_UP);
    loop {
        tokio::select! {
            _ = turns.tick() => metrics.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// Gauges of what serves, and of what lies in the folder and does not.
pub(crate) fn count_plugins(plugins: &PluginHost) {
    let plugins = plugins.status();
    let count = |is: fn(&PluginStatus) -> bool| plugins.iter().filter(|plugin| is(plugin)).count();
    let states = [
        ("serving", count(|plugin| plugin.digest.is_some())),
        ("refused", count(|plugin| plugin.refused.is_some())),
        (
            "rolled_back",
            count(|plugin| plugin.state == ServingState::RolledBack),
        ),
        (
            "canary",
            count(|plugin| plugin.state == ServingState::Canary),
        ),
        (
            "shadow",
            count(|plugin| plugin.state == ServingState::Shadow),
        ),
    ];
    for (state, count) in states {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        metrics::gauge!(metric::PLUGINS, "state" => state).set(count);
    }
}
