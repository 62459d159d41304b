//! A receiver that writes down what it got, and can fail.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ledger::Ledger;
use crate::workload::{self, Id, is_hard_to_please, is_unwanted, slowness};

/// How it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Accepts what it wants.
    Well,
    /// Closes every connection.
    Down,
    /// Answers 500.
    Failing,
}

struct Shared {
    ledger: Arc<Ledger>,
    strangers: AtomicU8,
}

/// Listens until it is dropped.
pub(crate) struct Receiver {
    port: u16,
    health: watch::Sender<Health>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(ledger: &Arc<Ledger>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (health, watched) = watch::channel(Health::Well);
        let shared = Arc::new(Shared {
            ledger: Arc::clone(ledger),
            strangers: AtomicU8::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared), watched));
        Ok(Self {
            port,
            health,
            shared,
            task,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// How it does from now on.
    pub(crate) fn set(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// Whether a request came that names no delivery.
    pub(crate) fn got_strangers(&self) -> bool {
        self.shared.strangers.load(Ordering::SeqCst) > 0
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, health: watch::Receiver<Health>) {
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        if *health.borrow() == Health::Down {
            continue;
        }
        let _ = socket.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let mut down = health.clone();
        let health = health.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                let (shared, health) = (Arc::clone(&shared), health.clone());
                async move { Ok::<_, Infallible>(answer(&shared, &health, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                _ = connection => {}
                _ = down.wait_for(|now| *now == Health::Down) => {}
            }
        });
    }
}

/// Tells the ledger, when it is dropped, that the receiver cut the connection before it could answer.
struct Unanswered<'a> {
    ledger: &'a Ledger,
    health: &'a watch::Receiver<Health>,
    /// What is not answered yet, if it was accepted.
    accepted: Option<Id>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // Without that it was the other side.
        let is_ours = *self.health.borrow() == Health::Down;
        if let Some(id) = self.accepted.filter(|_| is_ours) {
            self.ledger.cut(id);
        }
    }
}

async fn answer(
    shared: &Shared,
    health: &watch::Receiver<Health>,
    request: Request<Incoming>,
) -> Response<Empty<Bytes>> {
    let id = request
        .headers()
        .get("webhook-id")
        .and_then(|value| value.to_str().ok())
        .and_then(workload::id);
    // Read to the end, for the connection is used again.
    let whole = request.into_body().collect().await.is_ok();
    let status = match id {
        Some(id) if whole => {
            let status = if *health.borrow() != Health::Well {
                StatusCode::INTERNAL_SERVER_ERROR
            } else if is_unwanted(id) {
                StatusCode::GONE
            } else if is_hard_to_please(id) && !shared.ledger.has_arrived(id) {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::NO_CONTENT
            };
            shared.ledger.arrive(id, status);
            let mut unanswered = Unanswered {
                ledger: &shared.ledger,
                health,
                accepted: status.is_success().then_some(id),
            };
            tokio::time::sleep(slowness(id)).await;
            unanswered.accepted = None;
            status
        }
        Some(_) => StatusCode::BAD_REQUEST,
        None => {
            shared.strangers.store(1, Ordering::SeqCst);
            StatusCode::BAD_REQUEST
        }
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}
