//! `wasmhook events record`: a tenant's real events, for trying plugins out with.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::RawValue;
use wasmhook_core::{Event, EventType, OrderingKey, TenantId};
use wasmhook_store::{Filter, Store};

use super::mask::Mask;
use crate::args::RecordEvents;
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::json_text::Json;
use crate::{output, stores};

/// Deliveries read at once.
const PAGE: usize = 500;
/// Deliveries that are looked through for events of a type.
const MOST_LOOKED_AT: usize = 100_000;

/// One line, in the form of `event push`.
#[derive(Serialize)]
struct Line<'a> {
    tenant: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    id: &'a str,
    occurred_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    payload: Box<RawValue>,
}

#[derive(Serialize)]
struct Summary<'a> {
    events: usize,
    /// Events that are nested too deeply to be looked through.
    left_out: usize,
    /// Fields to be masked that no event had.
    unmatched: Vec<&'a str>,
    file: &'a Path,
}

/// Writes the newest events, oldest first.
pub(crate) async fn record(config: &Config, args: RecordEvents, json: bool) -> anyhow::Result<()> {
    let (tenant, event_type) = (&args.tenant, args.event_type.as_ref());
    let store = stores::open(config, false).await?.store;
    let events = newest(&*store, tenant, event_type, args.limit).await?;
    if events.is_empty() {
        let of_type = event_type
            .map(|name| format!(" of type {name}"))
            .unwrap_or_default();
        return Err(Coded::new(
            Exit::NotFound,
            format!("no event{of_type} of tenant {tenant} is kept"),
        ));
    }
    let mut mask = Mask::new(args.mask);
    let mut lines = Vec::with_capacity(events.len());
    let mut left_out = 0;
    for event in events.iter().rev() {
        match line(event, &mut mask)? {
            Some(line) => lines.push(line),
            None => left_out += 1,
        }
    }
    let unmatched = mask.unmatched();
    if !unmatched.is_empty() && !args.allow_unmatched {
        return Err(Coded::new(
            Exit::Failure,
            format!(
                "of {} none has the field {}, so nothing was written; put the name right, or add \
                 --allow-unmatched",
                output::count(events.len(), "event"),
                unmatched.join(", ")
            ),
        ));
    }
    if left_out > 0 {
        say(&format!(
            "left out {}, nested too deeply",
            output::count(left_out, "event")
        ));
    }
    for name in &unmatched {
        say(&format!("no event has the field {name}"));
    }
    let Some(file) = &args.output else {
        lines.iter().for_each(output::line);
        return Ok(());
    };
    write(file, &lines).with_context(|| format!("cannot write {}", file.display()))?;
    let summary = Summary {
        events: lines.len(),
        left_out,
        unmatched,
        file,
    };
    if json {
        return output::json(&summary);
    }
    output::line(format!(
        "recorded {} into {}",
        output::count(summary.events, "event"),
        file.display()
    ));
    Ok(())
}

/// The events of the newest deliveries, newest first.
async fn newest(
    store: &dyn Store,
    tenant: &TenantId,
    event_type: Option<&EventType>,
    limit: usize,
) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut seen = HashSet::new();
    let mut looked_at = 0;
    let mut cursor = None;
    loop {
        let page = store
            .list(&Filter {
                tenant: tenant.clone(),
                state: None,
                cursor,
                limit: PAGE,
            })
            .await?;
        looked_at += page.records.len();
        for record in page.records {
            let delivery = record.delivery;
            if event_type.is_some_and(|wanted| *wanted != delivery.event_type)
                || !seen.insert(delivery.event_id.clone())
            {
                continue;
            }
            events.extend(store.event(tenant, &delivery.event_id).await?);
            if events.len() == limit {
                return Ok(events);
            }
        }
        cursor = page.next;
        if cursor.is_none() || looked_at >= MOST_LOOKED_AT {
            return Ok(events);
        }
    }
}

/// An event as a line, masked; `None` if it cannot be looked through as a whole.
fn line(event: &Event, mask: &mut Mask) -> anyhow::Result<Option<String>> {
    let payload = std::str::from_utf8(event.payload.bytes())
        .context("the store gave a payload that is no text")?;
    let Ok(mut payload) = Json::parse(payload) else {
        return Ok(None);
    };
    mask.apply(&mut payload);
    let line = Line {
        tenant: event.tenant_id.as_str(),
        event_type: event.event_type.as_str(),
        id: event.id.as_str(),
        occurred_at: event.occurred_at.to_string(),
        deliver_at: event.deliver_at.map(|at| at.to_string()),
        ordering_key: event.ordering_key.as_ref().map(OrderingKey::as_str),
        payload: RawValue::from_string(payload.compact())?,
    };
    Ok(Some(serde_json::to_string(&line)?))
}

/// Writes a file that only its owner can read, as a whole or not at all. What a link leads to is replaced, not the
/// link; into what is no file, such as a pipe or `/dev/stdout`, is written.
fn write(file: &Path, lines: &[String]) -> std::io::Result<()> {
    let file = match file.symlink_metadata() {
        Ok(there) if there.is_symlink() => Cow::Owned(file.canonicalize()?),
        _ => Cow::Borrowed(file),
    };
    let file = &*file;
    match file.metadata() {
        Ok(there) if !there.is_file() => {
            let mut out = OpenOptions::new().write(true).open(file)?;
            return write_lines(&mut out, lines);
        }
        _ => {}
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Its mode is 0600 from the beginning.
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    write_lines(&mut draft, lines)?;
    draft.as_file().sync_all()?;
    draft.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn write_lines(to: &mut impl Write, lines: &[String]) -> std::io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(to, "{line}"))
}

#[expect(
    clippy::print_stderr,
    reason = "standard output may be where the events go"
)]
fn say(words: &str) {
    eprintln!("wasmhook: {words}");
}
