//! `wasmhook listen`: a receiver on this machine.

use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::args::Listen;
use crate::exit::{Coded, Exit};
use crate::receiver::{self, Arrival};
use crate::{host, output};

#[derive(Serialize)]
struct Printed<'a> {
    at: jiff::Timestamp,
    path: &'a str,
    id: &'a str,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    status: u16,
    content_type: &'a str,
    body: String,
}

/// Receives until interrupted, or until as many requests came as were asked for.
pub(crate) async fn run(listen: &Listen, json: bool) -> anyhow::Result<()> {
    let mut secrets: Vec<String> = listen
        .secret
        .iter()
        .map(|secret| secret.trim().to_owned())
        .collect();
    for file in &listen.secret_file {
        let secret = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the secret file {}", file.display()))?;
        secrets.push(secret.trim().to_owned());
    }
    if secrets.is_empty() {
        return Err(Coded::new(
            Exit::Usage,
            "expected --secret-file, to verify signatures with",
        ));
    }
    let listener = TcpListener::bind(listen.address())
        .await
        .with_context(|| format!("cannot listen on {}", listen.address()))?;
    let status = listen.status;
    let (address, mut arrivals) = receiver::start(listener, secrets, Arc::new(move |_| status))?;
    if !json {
        output::line(format!(
            "listening on http://{address}, answering {status} to what verifies"
        ));
    }
    let mut interrupted = host::Signals::new()?;
    let mut left = listen.count.unwrap_or(usize::MAX);
    while left > 0 {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => print(&arrival, json)?,
                None => break,
            },
            () = interrupted.next() => break,
        }
        left -= 1;
    }
    Ok(())
}

fn print(arrival: &Arrival, json: bool) -> anyhow::Result<()> {
    let id = match arrival.header("webhook-id") {
        "" => arrival.header("x-webhook-event-id"),
        id => id,
    };
    let body = String::from_utf8_lossy(&arrival.body);
    if json {
        return output::json_line(&Printed {
            at: arrival.at,
            path: &arrival.path,
            id,
            verified: arrival.verified.is_ok(),
            error: arrival.verified.as_ref().err().map(String::as_str),
            status: arrival.status,
            content_type: arrival.header("content-type"),
            body: body.into_owned(),
        });
    }
    let verified = match &arrival.verified {
        Ok(()) => "verified".to_owned(),
        Err(reason) => format!("NOT VERIFIED ({reason})"),
    };
    output::line(format!(
        "{} {} {verified} → {}  {}  {body}",
        output::time(arrival.at),
        arrival.path,
        arrival.status,
        id.escape_debug(),
    ));
    Ok(())
}
