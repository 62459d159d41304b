//! `wasmhook events …`

mod mask;
mod record;

use crate::config::Config;
use crate::{output, stores};

pub(crate) use mask::Field;
pub(crate) use record::record;

/// Lists refused events, newest first.
pub(crate) async fn rejected(config: &Config, limit: usize, json: bool) -> anyhow::Result<()> {
    let stores = stores::open(config, false).await?;
    let events = stores.store.rejected(limit).await?;
    if json {
        return output::json(&events);
    }
    let rows = events
        .into_iter()
        .map(|event| {
            [
                output::time(event.at),
                event.source,
                event.tenant,
                event.event_id,
                event.event_type,
                event.reason,
            ]
        })
        .collect();
    output::table(
        ["at", "source", "tenant", "event", "type", "reason"],
        rows,
        "no event was rejected",
    );
    Ok(())
}
