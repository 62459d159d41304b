//! The receiver: answers 204 to everything, counts, and knows how late each event is.
//!
//! `GET /stats` gives the figures since the last `GET /reset`, and `GET /lateness` how late each event was too.
//! That is as long as there were events: who asks for it while a measurement runs takes part in it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::scenario::float;

/// What arrived since the last reset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Requests.
    pub(crate) count: u64,
    /// First and last arrival, in seconds since 1970.
    pub(crate) first: f64,
    pub(crate) last: f64,
    /// First arrival with an `x-region` header, which the second sample component sets.
    pub(crate) first_tagged: Option<f64>,
    /// How late each event was, in milliseconds, where its payload says when it was pushed.
    pub(crate) late_ms: Vec<f64>,
}

/// Where a payload holds the time it was pushed, as digits of nanoseconds: see `scenario::payload`.
pub(crate) const PUSHED_AT: &[u8] = b"\"pushed_ns\":\"";

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// How long the request of this number takes where `delay` is the mean: from half to one and a half of it, or what was
/// sent together would be answered together for ever.
fn varied(delay: Duration, number: u64) -> Duration {
    // Multiples of the golden ratio lie evenly, however many there are.
    let place = (float(number) * 0.618_034).fract();
    delay.mul_f64(0.5 + place)
}

/// Runs until killed; prints its port first. Answers a request after `delay`, given in milliseconds, or about that long
/// if it is seconds.
pub(crate) async fn run(delay: Option<&String>) -> anyhow::Result<()> {
    let delay = Duration::from_millis(delay.map_or(Ok(0), |text| text.parse())?);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let stats = Arc::new(Mutex::new(Stats::default()));
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let stats = Arc::clone(&stats);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&stats), delay));
            // A connection that breaks is the sender's business.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    stats: Arc<Mutex<Stats>>,
    delay: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let lock = || stats.lock().unwrap_or_else(PoisonError::into_inner);
    if request.method() == Method::GET {
        let mut stats = lock();
        if request.uri().path() == "/reset" {
            *stats = Stats::default();
        }
        let body = if request.uri().path() == "/lateness" {
            serde_json::to_vec(&*stats)
        } else {
            let late_ms = std::mem::take(&mut stats.late_ms);
            let body = serde_json::to_vec(&*stats);
            stats.late_ms = late_ms;
            body
        };
        let body = body.unwrap_or_default();
        return Ok(Response::new(Full::from(body)));
    }
    let tagged = request.headers().contains_key("x-region");
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let number = {
        let mut stats = lock();
        note(&mut stats, tagged, &body);
        stats.count
    };
    if delay >= Duration::from_secs(1) {
        tokio::time::sleep(varied(delay, number)).await;
    } else if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Counts one request that has arrived.
fn note(stats: &mut Stats, tagged: bool, body: &[u8]) {
    let at = now();
    stats.count += 1;
    if stats.count == 1 {
        stats.first = at;
    }
    stats.last = at;
    if tagged && stats.first_tagged.is_none() {
        stats.first_tagged = Some(at);
    }
    if let Some(pushed) = pushed_at(body) {
        stats.late_ms.push((at - pushed) * 1000.0);
    }
}

/// The time of push that a payload carries near its beginning.
fn pushed_at(body: &[u8]) -> Option<f64> {
    let head = &body[..body.len().min(64)];
    let start = head
        .windows(PUSHED_AT.len())
        .position(|window| window == PUSHED_AT)?
        + PUSHED_AT.len();
    let digits = head[start..].split(|byte| *byte == b'"').next()?;
    let nanoseconds: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
