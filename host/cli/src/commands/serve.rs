//! `wasmhook serve`

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::host::{Host, Signals};

/// The exit code of a process that its second signal ended, as shells count it (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// Runs the host until a signal.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let host = tokio::select! {
        host = Host::start(config) => host?,
        () = signals.next() => return Ok(()),
    };
    tracing::info!(
        listen = %host.address()?,
        store = ?config.store.kind,
        tenants = host.rooms.tenants.ids().len(),
        plugins = host.rooms.plugins.status().len(),
        "wasmhook serves"
    );
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping; a second signal stops at once");
        stopping.cancel();
        signals.next().await;
        tracing::warn!(
            "stopped at once; what was in flight will be attempted again when its leases expire"
        );
        std::process::exit(INTERRUPTED);
    });
    host.run(stop).await?;
    tracing::info!("stopped");
    Ok(())
}
