//! An HTTP receiver on loopback.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// What a receiver answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status; 204 when it is zero.
    pub status: u16,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
    /// How long to wait before answering.
    pub delay: Duration,
}

impl Answer {
    /// An empty answer of this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// The same, after a while.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, with one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// A header as text, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Plan {
    /// Answers to give once each, by path.
    next: HashMap<String, VecDeque<Answer>>,
    /// Answers to give from then on, by path.
    always: HashMap<String, Answer>,
    /// The answer for every other path.
    default: Answer,
}

struct Shared {
    recording: bool,
    count: AtomicU64,
    open: AtomicUsize,
    most_open: AtomicUsize,
    plan: Mutex<Plan>,
    received: Mutex<Vec<Received>>,
    arrived: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An HTTP/1.1 server on a free loopback port that answers 204 unless told otherwise, and keeps what
/// it received. It ends, with its connections, when this is dropped.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts a receiver that keeps every request.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::serve(true).await
    }

    /// Starts a receiver that only counts, cheap enough to measure senders with. It answers as
    /// [`Self::always`] says and passes over what is planned per path.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn counting() -> io::Result<Self> {
        Self::serve(false).await
    }

    async fn serve(recording: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            recording,
            count: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            plan: Mutex::default(),
            received: Mutex::default(),
            arrived: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What to answer on every path that has no answer of its own.
    pub fn always(&self, answer: Answer) {
        lock(&self.shared.plan).default = answer;
    }

    /// What to answer on a path from now on.
    pub fn on(&self, path: &str, answer: Answer) {
        let mut plan = lock(&self.shared.plan);
        plan.always.insert(path.to_owned(), answer);
    }

    /// What to answer to the next requests on a path, once each; afterwards as before.
    pub fn then(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut plan = lock(&self.shared.plan);
        plan.next
            .entry(path.to_owned())
            .or_default()
            .extend(answers);
    }

    /// How many requests arrived.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// The largest number of requests that were being answered at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// The requests so far, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until at least this many requests have arrived; says whether they came in time.
    pub async fn wait_for(&self, count: u64, timeout: Duration) -> bool {
        let waiting = async {
            loop {
                let arrived = self.shared.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if self.count() >= count {
                    return;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(timeout, waiting).await.is_ok()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = socket.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_open.fetch_max(open, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let answer = if shared.recording {
        let path = head.uri.path().to_owned();
        lock(&shared.received).push(Received {
            method: head.method,
            path: head
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            headers: head.headers,
            body: body.unwrap_or_default(),
        });
        let mut plan = lock(&shared.plan);
        let once = plan.next.get_mut(&path).and_then(VecDeque::pop_front);
        once.unwrap_or_else(|| plan.always.get(&path).unwrap_or(&plan.default).clone())
    } else {
        lock(&shared.plan).default.clone()
    };
    shared.count.fetch_add(1, Ordering::SeqCst);
    shared.arrived.notify_waiters();
    if !answer.delay.is_zero() {
        tokio::time::sleep(answer.delay).await;
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = match answer.status {
        0 => StatusCode::NO_CONTENT,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
