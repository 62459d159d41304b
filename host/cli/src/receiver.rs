//! A receiver that verifies signatures with the published Standard Webhooks library, which is not
//! ours: what it accepts, any receiver will.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wasmhook_core::{SigningSecret, signing};

/// One request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: jiff::Timestamp,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) verified: Result<(), String>,
    pub(crate) status: u16,
}

impl Arrival {
    /// A header's value for printing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

/// Decides the status for a verified request.
pub(crate) type Answer = Arc<dyn Fn(&Arrival) -> u16 + Send + Sync>;

struct Shared {
    secrets: Vec<String>,
    answer: Answer,
    arrivals: mpsc::UnboundedSender<Arrival>,
}

/// Starts receiving on a listener; arrivals come out of the channel in the order they were answered.
pub(crate) fn start(
    listener: TcpListener,
    secrets: Vec<String>,
    answer: Answer,
) -> anyhow::Result<(SocketAddr, mpsc::UnboundedReceiver<Arrival>)> {
    let address = listener.local_addr()?;
    let (sender, arrivals) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        secrets,
        answer,
        arrivals: sender,
    });
    let router = Router::new().fallback(receive).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((address, arrivals))
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let verified = verify(&shared.secrets, &headers, &body);
    let mut arrival = Arrival {
        at: jiff::Timestamp::now(),
        path: uri.path().to_owned(),
        headers,
        body,
        verified,
        status: 400,
    };
    if arrival.verified.is_ok() {
        arrival.status = (shared.answer)(&arrival);
    }
    let status = StatusCode::from_u16(arrival.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The one who prints may have enough; the sender is answered all the same.
    let _ = shared.arrivals.send(arrival);
    status
}

/// Verifies either profile against any of the secrets.
fn verify(secrets: &[String], headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    if secrets.is_empty() {
        return Err("no secret was given to verify with".to_owned());
    }
    let mut why = String::new();
    for secret in secrets {
        let verified = if headers.contains_key(signing::SIGNATURE_HEADER) {
            standardwebhooks::Webhook::new(secret)
                .and_then(|webhook| webhook.verify(body, headers))
                .map_err(|error| error.to_string())
        } else {
            sha256(secret, headers, body)
        };
        match verified {
            Ok(()) => return Ok(()),
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

fn sha256(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let given = headers
        .get("x-signature")
        .ok_or("there is no signature header")?;
    let secret = SigningSecret::parse(secret).map_err(|error| error.to_string())?;
    let expected = signing::sha256(&secret, body).map_err(|error| error.to_string())?;
    if given.as_bytes() == expected.as_bytes() {
        Ok(())
    } else {
        Err("the signature is wrong".to_owned())
    }
}
