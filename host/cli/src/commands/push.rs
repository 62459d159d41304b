//! `wasmhook event push`

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wasmhook_core::EventDraft;
use wasmhook_store::EventStream as _;
use wasmhook_store::redis::RedisStream;

use crate::args::Push;
use crate::config::{Config, StoreKind};
use crate::exit::{Coded, Exit};
use crate::{output, stores};

/// Events pushed in one call.
const BATCH: usize = 500;

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    pushed: u64,
    duplicates: u64,
    refused: u64,
    /// The id, when one event was pushed: made up if none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Where events go.
enum Target {
    /// The Redis stream, as any producer would.
    Stream(Box<RedisStream>),
    /// The HTTP API.
    Http {
        client: reqwest::Client,
        url: String,
        token: Option<String>,
    },
}

/// Pushes one event from flags, or lines of JSON from standard input.
pub(crate) async fn run(config: &Config, push: Push, json: bool) -> anyhow::Result<()> {
    let target = Target::open(config, push.to.as_deref()).await?;
    let mut summary = Summary::default();
    if let Some(draft) = single(push)? {
        summary.id = Some(draft.id.clone());
        target
            .push(vec![(None, Ok(draft))], &mut summary, json)
            .await?;
    } else {
        many(&target, &mut summary, json).await?;
    }
    if json {
        output::json(&summary)?;
    } else {
        let id = summary
            .id
            .as_ref()
            .map(|id| format!(" {id}"))
            .unwrap_or_default();
        output::line(format!(
            "pushed{id}: {}, {} known before, {} refused",
            output::count(summary.pushed, "event"),
            summary.duplicates,
            summary.refused
        ));
    }
    if summary.refused > 0 {
        return Err(Coded::new(
            Exit::Refused,
            format!("{} refused", output::count(summary.refused, "event")),
        ));
    }
    Ok(())
}

/// The event that the flags describe; `None` when events come from standard input.
fn single(push: Push) -> anyhow::Result<Option<EventDraft>> {
    let (Some(tenant), Some(event_type), Some(payload)) =
        (push.tenant, push.event_type, push.payload)
    else {
        return Ok(None);
    };
    let payload = if payload == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read the payload from standard input")?;
        Bytes::from(bytes)
    } else if let Some(file) = payload.strip_prefix('@') {
        Bytes::from(
            std::fs::read(file).with_context(|| format!("cannot read the payload from {file}"))?,
        )
    } else {
        Bytes::from(payload)
    };
    let id = push.id.map_or_else(
        || format!("evt_{}", uuid::Uuid::now_v7().simple()),
        String::from,
    );
    let draft = EventDraft {
        id,
        tenant: tenant.into(),
        event_type: event_type.into(),
        payload,
        occurred_at: push.occurred_at,
        deliver_at: push.deliver_at,
        ordering_key: push.ordering_key.map(String::from),
        fault: None,
    };
    // Refused here already, so that who pushes to a stream is told at once.
    draft
        .clone()
        .accept(jiff::Timestamp::now(), usize::MAX)
        .map_err(|error| Coded::new(Exit::Refused, error.to_string()))?;
    Ok(Some(draft))
}

async fn many(target: &Target, summary: &mut Summary, json: bool) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        return Err(Coded::new(
            Exit::Usage,
            "expected --tenant, --type and --payload, or one event per line on standard input",
        ));
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} events pushed, {per_sec}")?;
    let progress = if json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new_spinner().with_style(style)
    };
    let mut lines = BufReader::new(std::io::stdin()).split(b'\n');
    let mut number = 0;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let Some(line) = lines.next() else { break };
            number += 1;
            let line = line.context("cannot read standard input")?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let draft = EventDraft::from_json_line(&line).and_then(|draft| {
                draft
                    .clone()
                    .accept(jiff::Timestamp::now(), usize::MAX)
                    .map(|_| draft)
            });
            batch.push((Some(number), draft));
        }
        if batch.is_empty() {
            break;
        }
        let read = batch.len();
        target.push(batch, summary, json).await?;
        progress.inc(read as u64);
    }
    progress.finish_and_clear();
    Ok(())
}

impl Target {
    async fn open(config: &Config, to: Option<&str>) -> anyhow::Result<Self> {
        if to.is_none() && config.store.kind == StoreKind::Redis {
            return Ok(Self::Stream(Box::new(stores::open_stream(config).await?)));
        }
        let base = to.map_or_else(|| format!("http://{}", config.http.listen), str::to_owned);
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self::Http {
            client,
            url: format!("{}/v1/events", base.trim_end_matches('/')),
            token: config
                .http
                .token
                .as_ref()
                .map(|token| token.expose_secret().to_owned()),
        })
    }

    /// Pushes a batch, each with the number of its line, by which is named what is refused.
    async fn push(
        &self,
        drafts: Vec<(Option<usize>, Result<EventDraft, wasmhook_core::Error>)>,
        summary: &mut Summary,
        json: bool,
    ) -> anyhow::Result<()> {
        let mut good = Vec::with_capacity(drafts.len());
        for (line, draft) in drafts {
            match draft {
                Ok(draft) => good.push((line, draft)),
                Err(error) => refused(line, &error.to_string(), summary, json),
            }
        }
        let (lines, drafts): (Vec<_>, Vec<_>) = good.into_iter().unzip();
        if drafts.is_empty() {
            return Ok(());
        }
        match self {
            Self::Stream(stream) => {
                stream.push(&drafts).await?;
                summary.pushed += drafts.len() as u64;
            }
            Self::Http { client, url, token } => {
                let answers = post(client, url, token.as_deref(), &drafts).await?;
                let mut unavailable = 0;
                for (line, answer) in lines.into_iter().zip(answers.results) {
                    match answer.status.as_str() {
                        "enqueued" => summary.pushed += 1,
                        "duplicate" => summary.duplicates += 1,
                        "unavailable" => unavailable += 1,
                        _ => refused(
                            line,
                            &answer.error.map(|error| error.message).unwrap_or_default(),
                            summary,
                            json,
                        ),
                    }
                }
                if unavailable > 0 {
                    return Err(Coded::new(
                        Exit::Unavailable,
                        format!(
                            "of {} {unavailable} could not be taken in, for a part of the store does not answer; push all again, which makes no second delivery",
                            output::count(drafts.len(), "event")
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::print_stderr,
    reason = "what is refused goes to standard error, beside the summary"
)]
fn refused(line: Option<usize>, reason: &str, summary: &mut Summary, json: bool) {
    summary.refused += 1;
    match line {
        _ if json => eprintln!("{}", serde_json::json!({ "line": line, "error": reason })),
        Some(line) => eprintln!("line {line}: {reason}"),
        None => eprintln!("{reason}"),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    tenant: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answers {
    results: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: Failure,
}

async fn post(
    client: &reqwest::Client,
    url: &str,
    token: Option<&str>,
    drafts: &[EventDraft],
) -> anyhow::Result<Answers> {
    let events = drafts
        .iter()
        .map(|draft| {
            let payload: &RawValue = serde_json::from_slice(&draft.payload)?;
            Ok(Line {
                id: &draft.id,
                tenant: &draft.tenant,
                event_type: &draft.event_type,
                payload,
                occurred_at: draft.occurred_at.as_deref(),
                deliver_at: draft.deliver_at.as_deref(),
                ordering_key: draft.ordering_key.as_deref(),
            })
        })
        .collect::<Result<Vec<_>, serde_json::Error>>()?;
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&events)?);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let unreachable = |_| {
        Coded::new(
            Exit::Unavailable,
            format!(
                "no wasmhook answers at {url}; start `wasmhook serve`, or name another host with --to"
            ),
        )
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.map_err(unreachable)?;
    if let Ok(answers) = serde_json::from_slice::<Answers>(&body) {
        return Ok(answers);
    }
    let reason = serde_json::from_slice::<Refusal>(&body)
        .map_or_else(|_| status.to_string(), |r| r.error.message);
    Err(Coded::new(
        Exit::Unavailable,
        format!("{url} answered {}: {reason}", status.as_u16()),
    ))
}
