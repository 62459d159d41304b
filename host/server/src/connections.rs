//! Connections of clients, none of which can hold the host up.
//!
//! A client may send half a request and then nothing, by intent or because its machine is gone. So there
//! is a limit to how long a request may take to come, and to how long a stop waits for one that has begun.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long clients, and the store on their behalf, are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the head of a request, counted from the end of the one before. Default two minutes: clients and
    /// balancers keep idle connections for 60 or 90 seconds, and are to be the ones that close them, for a
    /// request that meets a closing connection is lost.
    pub head: Duration,
    /// For the body of a request. Default half a minute.
    pub body: Duration,
    /// For requests under way at a stop. Default 20 seconds.
    pub finish: Duration,
    /// For the store to take in the events of a request, all its steps together. Default ten seconds: many
    /// times what a full batch takes, and less than most producers wait.
    pub store: Duration,
    /// For the store to show a sign of life to `/readyz`. Default a second, as probes have by default.
    pub probe: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(120),
            body: Duration::from_secs(30),
            finish: Duration::from_secs(20),
            store: Duration::from_secs(10),
            probe: Duration::from_secs(1),
        }
    }
}

/// Serves until `stop`, then lets requests under way finish.
pub(crate) async fn serve(
    mut listener: TcpListener,
    routes: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let accepting = accept(&mut listener, &routes, patience, &stop, &connections);
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves as long as something else takes. Connections that are open then end after the request that is under way.
pub(crate) async fn serve_while<T>(
    listener: &mut TcpListener,
    routes: Router,
    patience: Patience,
    other: impl Future<Output = T>,
) -> T {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let connections = TaskTracker::new();
    tokio::select! {
        done = other => done,
        never = accept(listener, &routes, patience, &stop, &connections) => match never {},
    }
}

/// Takes connections, each of which ends by itself or after `stop`.
async fn accept(
    listener: &mut TcpListener,
    routes: &Router,
    patience: Patience,
    stop: &CancellationToken,
    connections: &TaskTracker,
) -> Infallible {
    loop {
        // Errors, such as too many open files, are logged and waited out in there.
        let (stream, _) = Listener::accept(listener).await;
        connections.spawn(connection(stream, routes.clone(), patience, stop.clone()));
    }
}

async fn connection(
    stream: TcpStream,
    routes: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.head);
    let routes = TowerToHyperService::new(routes);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), routes));
    let ended = stop.run_until_cancelled(connection.as_mut()).await;
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        let Ok(ended) = timeout(patience.finish, connection).await else {
            tracing::warn!("a request that had not come to its end was cut off by the stop");
            return;
        };
        ended
    };
    // A client that goes, or does not speak HTTP, is its own affair.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the API broke");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    /// Never waited for where all is well.
    const LONG: Duration = Duration::from_secs(600);

    struct Served {
        client: TcpStream,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn served(patience: Patience) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let routes = Router::new().route(
            "/slow",
            get(|| async {
                tokio::time::sleep(SHORT).await;
                "done"
            }),
        );
        let serving = tokio::spawn(serve(listener, routes, patience, stop.clone()));
        Served {
            client: client.await.unwrap(),
            stop,
            serving,
        }
    }

    async fn all_of(mut client: TcpStream) -> String {
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(60), client.read_to_end(&mut answer));
        read.await.expect("the connection was closed").unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_a_stop() {
        let patience = Patience {
            head: LONG,
            body: LONG,
            finish: SHORT,
            ..Patience::default()
        };
        for half in [
            "",
            "GET /slow HTTP/1.1\r\nhost: a",
            "GET /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
        ] {
            let mut served = served(patience).await;
            served.client.write_all(half.as_bytes()).await.unwrap();
            tokio::time::sleep(SHORT / 2).await;
            served.stop.cancel();
            let ended = timeout(Duration::from_secs(60), served.serving).await;
            ended
                .unwrap_or_else(|_| panic!("{half:?} held it up"))
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_at_a_stop() {
        let patience = Patience {
            finish: LONG,
            ..Patience::default()
        };
        let mut served = served(patience).await;
        let request = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
        served.client.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(SHORT / 2).await;
        served.stop.cancel();
        assert!(all_of(served.client).await.ends_with("done"));
        served.serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_closes_its_connection() {
        let patience = Patience {
            head: SHORT,
            ..Patience::default()
        };
        for half in ["", "GET /slow HTTP/1.1\r\nhost: a"] {
            let mut served = served(patience).await;
            served.client.write_all(half.as_bytes()).await.unwrap();
            all_of(served.client).await;
            served.stop.cancel();
        }
    }
}
