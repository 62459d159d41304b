//! `wasmhook deliveries …`

use std::sync::Arc;

use serde::Serialize;
use wasmhook_core::{
    Delivery, DeliveryId, DeliveryState, OnDeadLetter, PluginUse, Sequence, TenantId,
};
use wasmhook_store::{Cursor, Filter, Record, Store, StoreError};

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::{output, stores};

/// Deliveries read at once when all of a tenant are wanted.
const PAGE: usize = 500;

#[derive(Serialize)]
struct Listed {
    deliveries: Vec<Record>,
    next_cursor: Option<Cursor>,
}

/// Lists deliveries of one tenant or of all.
pub(crate) async fn list(
    config: &Config,
    tenant: Option<TenantId>,
    state: Option<DeliveryState>,
    limit: usize,
    cursor: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    let store = stores::open(config, false).await?.store;
    let tenants = match tenant {
        Some(tenant) => vec![tenant],
        None => store.tenants().await?,
    };
    let alone = tenants.len() == 1;
    let mut deliveries = Vec::new();
    let mut next_cursor = None;
    for tenant in tenants {
        let mut at = cursor.clone().map(Cursor);
        loop {
            let limit = limit.saturating_sub(deliveries.len());
            if limit == 0 {
                break;
            }
            let page = store
                .list(&Filter {
                    tenant: tenant.clone(),
                    state,
                    cursor: at,
                    limit,
                })
                .await
                .map_err(|error| match error {
                    // No other of these could be wrong.
                    StoreError::Configuration(words) => {
                        Coded::new(Exit::Usage, format!("--cursor: {words}"))
                    }
                    error => error.into(),
                })?;
            deliveries.extend(page.records);
            at = page.next;
            if at.is_none() {
                break;
            }
        }
        if alone {
            next_cursor = at;
        }
    }
    if json {
        // What receivers answered is the tenant's and comes with `show --response` only.
        for record in &mut deliveries {
            hide_responses(record);
        }
        return output::json(&Listed {
            deliveries,
            next_cursor,
        });
    }
    let rows = deliveries.iter().map(row).collect();
    let header = [
        "delivery", "tenant", "event", "type", "endpoint", "state", "attempts", "next", "updated",
    ];
    output::table(header, rows, "no deliveries");
    if let Some(Cursor(cursor)) = next_cursor {
        output::line(format!("\nmore: --cursor '{cursor}'"));
    }
    Ok(())
}

/// Whether it waits for a time: to be tried again, or that its event is to be delivered at.
fn waits(delivery: &Delivery) -> bool {
    match delivery.state {
        DeliveryState::Failed => true,
        DeliveryState::Pending => delivery.is_scheduled(),
        _ => false,
    }
}

fn row(record: &Record) -> [String; 9] {
    let delivery = &record.delivery;
    let next = if waits(delivery) {
        output::relative(delivery.next_at)
    } else {
        String::new()
    };
    [
        delivery.id.to_string(),
        delivery.tenant_id.to_string(),
        delivery.event_id.to_string(),
        delivery.event_type.to_string(),
        delivery.endpoint_id.to_string(),
        delivery.state.to_string(),
        delivery.attempt.to_string(),
        next,
        output::relative(delivery.updated_at),
    ]
}

fn hide_responses(record: &mut Record) {
    for attempt in &mut record.attempts {
        attempt.response_excerpt = None;
    }
}

/// Tells the story of one delivery.
pub(crate) async fn show(
    config: &Config,
    id: &DeliveryId,
    tenant: Option<TenantId>,
    response: bool,
    json: bool,
) -> anyhow::Result<()> {
    let store = stores::open(config, false).await?.store;
    let tenants = match tenant {
        Some(tenant) => vec![tenant],
        None => store.tenants().await?,
    };
    let mut record = find(&store, &tenants, id)
        .await?
        .ok_or_else(|| Coded::new(Exit::NotFound, format!("there is no delivery {id}")))?;
    if !response {
        hide_responses(&mut record);
    }
    let event = store
        .event(&record.delivery.tenant_id, &record.delivery.event_id)
        .await?;
    if json {
        let mut value = serde_json::to_value(&record)?;
        if let (Some(object), Some(event)) = (value.as_object_mut(), &event) {
            object.insert(
                "occurred_at".into(),
                serde_json::to_value(event.occurred_at)?,
            );
            if let Some(at) = event.deliver_at {
                object.insert("deliver_at".into(), serde_json::to_value(at)?);
            }
            object.insert("payload_bytes".into(), event.payload.len().into());
        }
        return output::json(&value);
    }
    let delivery = &record.delivery;
    let mut facts = vec![
        ("delivery", delivery.id.to_string()),
        ("tenant", delivery.tenant_id.to_string()),
        (
            "event",
            format!("{} ({})", delivery.event_id, delivery.event_type),
        ),
    ];
    if let Some(event) = &event {
        facts.push(("occurred", output::time(event.occurred_at)));
        if let Some(at) = event.deliver_at {
            facts.push(("scheduled", output::time(at)));
        }
        facts.push(("payload", output::count(event.payload.len(), "byte")));
    }
    facts.push(("endpoint", endpoint(&record)));
    if let Some(resolver) = &delivery.resolver {
        facts.push(("resolver", plugin(resolver)));
    }
    if let Some(sequence) = &delivery.sequence {
        facts.push(("sequence", sequence_words(sequence)));
    }
    facts.push(("state", state(&record)));
    facts.push(("enqueued", output::time(delivery.created_at)));
    facts.push(("updated", output::time(delivery.updated_at)));
    for (name, value) in facts {
        output::line(format!("{name:<10}{value}"));
    }
    output::line("");
    attempts(&record);
    Ok(())
}

async fn find(
    store: &Arc<dyn Store>,
    tenants: &[TenantId],
    id: &DeliveryId,
) -> Result<Option<Record>, StoreError> {
    for tenant in tenants {
        if let Some(record) = store.get(tenant, id).await? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// A plugin that ran: name, version, verdict, processor time.
fn plugin(used: &PluginUse) -> String {
    let verdict = used.verdict.as_deref().map(|verdict| format!(" {verdict}"));
    format!(
        "{}@{}{} {}µs",
        used.name,
        output::short(&used.digest),
        verdict.unwrap_or_default(),
        used.cpu_us
    )
}

fn endpoint(record: &Record) -> String {
    let delivery = &record.delivery;
    match &delivery.resolved {
        Some(resolved) => format!(
            "{} → {} (made by the resolver)",
            delivery.endpoint_id, resolved.url
        ),
        None => delivery.endpoint_id.to_string(),
    }
}

fn state(record: &Record) -> String {
    let delivery = &record.delivery;
    let retry = record.attempts.last().and_then(|attempt| attempt.next_at);
    let more = match (delivery.state, record.lease_until) {
        (DeliveryState::Pending, _) if record.behind.is_some() => {
            let first = record.behind.as_ref().map(DeliveryId::as_str);
            format!(", waiting for {}", first.unwrap_or_default())
        }
        // Looked at in between, in case that its plugin was put right.
        (DeliveryState::Failed, _) if retry.is_some_and(|retry| retry > delivery.next_at) => {
            format!(
                ", next attempt {}, or {} if another version of the plugin serves then",
                retry.map(output::time).unwrap_or_default(),
                output::relative(delivery.next_at)
            )
        }
        (DeliveryState::Failed, _) => format!(", next attempt {}", due(delivery)),
        (DeliveryState::Pending, _) if delivery.is_scheduled() => {
            format!(", due {}", due(delivery))
        }
        (DeliveryState::Leased, Some(until)) => format!(", until {}", output::time(until)),
        _ => String::new(),
    };
    let stalls = if record.endpoint_stalls {
        "; its endpoint gives no answer in time, so it gets few deliveries at once until it does"
    } else {
        ""
    };
    format!(
        "{} after {}{more}{stalls}",
        delivery.state,
        output::count(delivery.attempt, "attempt")
    )
}

fn sequence_words(sequence: &Sequence) -> String {
    let key = match &sequence.key {
        Some(key) => format!("key {key}"),
        None => "all of the endpoint".to_owned(),
    };
    let dead = match sequence.on_dead_letter {
        OnDeadLetter::Block => "a dead letter blocks it",
        OnDeadLetter::Skip => "dead letters are skipped",
    };
    let most = sequence.max_attempts;
    let most = most.map_or_else(String::new, |most| {
        format!("; at most {}", output::count(most.get(), "attempt"))
    });
    format!("{key}; {dead}{most}")
}

fn due(delivery: &Delivery) -> String {
    let (at, relative) = (delivery.next_at, output::relative(delivery.next_at));
    format!("{} ({relative})", output::time(at))
}

fn attempts(record: &Record) {
    let rows = record
        .attempts
        .iter()
        .map(|attempt| {
            let plugins: Vec<_> = attempt.plugins.iter().map(plugin).collect();
            [
                attempt.number.to_string(),
                output::time(attempt.at),
                format!("{} ms", attempt.duration_ms),
                attempt.outcome.to_string(),
                attempt
                    .status_code
                    .map_or_else(String::new, |status| status.to_string()),
                attempt
                    .error_class
                    .map_or_else(String::new, |class| class.to_string()),
                attempt.next_at.map_or_else(String::new, output::time),
                plugins.join(", "),
                attempt.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "attempt", "at", "took", "outcome", "status", "class", "next", "plugins", "why",
    ];
    output::table(header, rows, "no attempt was made yet");
    for attempt in &record.attempts {
        if let Some(excerpt) = &attempt.response_excerpt {
            // Escaped, because the receiver may have sent terminal control sequences.
            output::line(format!(
                "\nanswer to attempt {}: {}",
                attempt.number,
                excerpt.escape_debug()
            ));
        }
    }
}

#[derive(Serialize)]
struct Replayed {
    replayed: Vec<DeliveryId>,
}

/// Replays deliveries by id, or all dead letters of a tenant.
pub(crate) async fn replay(
    config: &Config,
    tenant: &TenantId,
    ids: Vec<DeliveryId>,
    dead_letters: bool,
    json: bool,
) -> anyhow::Result<()> {
    let store = stores::open(config, false).await?.store;
    let ids = if dead_letters {
        all_dead_letters(&store, tenant).await?
    } else {
        ids
    };
    let mut replayed = Vec::with_capacity(ids.len());
    for id in ids {
        match store.replay(tenant, &id).await {
            Ok(()) => replayed.push(id),
            // Another support engineer was faster, or retention was.
            Err(StoreError::NotFound | StoreError::NotFinished(_)) if dead_letters => {}
            Err(error) => {
                let words = format!("{id} was not replayed ({} before it were)", replayed.len());
                return Err(anyhow::Error::new(error).context(words));
            }
        }
    }
    if json {
        return output::json(&Replayed { replayed });
    }
    output::line(format!(
        "replayed {}",
        output::count(replayed.len(), "delivery")
    ));
    Ok(())
}

#[derive(Serialize)]
struct Skipped {
    skipped: Vec<DeliveryId>,
}

/// Lets sequences go on that dead letters block.
pub(crate) async fn skip(
    config: &Config,
    tenant: &TenantId,
    ids: Vec<DeliveryId>,
    json: bool,
) -> anyhow::Result<()> {
    let store = stores::open(config, false).await?.store;
    let mut skipped = Vec::with_capacity(ids.len());
    for id in ids {
        if let Err(error) = store.skip(tenant, &id).await {
            let words = format!("{id} was not skipped ({} before it were)", skipped.len());
            return Err(anyhow::Error::new(error).context(words));
        }
        skipped.push(id);
    }
    if json {
        return output::json(&Skipped { skipped });
    }
    output::line(format!(
        "skipped {}",
        output::count(skipped.len(), "delivery")
    ));
    Ok(())
}

async fn all_dead_letters(
    store: &Arc<dyn Store>,
    tenant: &TenantId,
) -> Result<Vec<DeliveryId>, StoreError> {
    let mut ids = Vec::new();
    let mut cursor = None;
    loop {
        let state = Some(DeliveryState::DeadLetter);
        let page = store
            .list(&Filter {
                tenant: tenant.clone(),
                state,
                cursor,
                limit: PAGE,
            })
            .await?;
        ids.extend(page.records.into_iter().map(|record| record.delivery.id));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(ids);
        }
    }
}
