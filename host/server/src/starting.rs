//! What a host answers while it starts.
//!
//! Its port is taken before its store is opened, which takes as long as the store's server does not answer or a large
//! file of an older version is read, and its plugins are looked through, which takes seconds where there are thousands,
//! and half a minute where many have to be compiled. Who probes the host meanwhile is to hear that it lives, or would
//! restart it for ever.

use axum::Router;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::connections::{self, Patience};
use crate::events::failure;
use crate::health;

/// Answers that the host is starting as long as `start` takes: `/healthz` as ever, all else with 503.
pub async fn serve_start<T>(
    listener: &mut TcpListener,
    patience: Patience,
    start: impl Future<Output = T>,
) -> T {
    let routes = Router::new()
        .route("/healthz", get(health::alive))
        .fallback(starting);
    connections::serve_while(listener, routes, patience, start).await
}

async fn starting() -> Response {
    let words = "the host is starting: it opens its store and looks through its plugins; try again";
    let refusal = failure(StatusCode::SERVICE_UNAVAILABLE, "starting", words);
    let headers = [
        (RETRY_AFTER, HeaderValue::from_static("1")),
        // What is asked next is for the host that has started.
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    (headers, refusal).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn asked(address: std::net::SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_host_that_starts_says_that_it_lives_and_takes_nothing_in() {
        let mut listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (started, start) = oneshot::channel();
        let asking = tokio::spawn(async move {
            let mut answers = Vec::new();
            for request in ["GET /healthz", "GET /readyz", "POST /v1/events"] {
                answers.push(asked(address, request).await);
            }
            started.send(answers).unwrap();
        });
        let answers = serve_start(&mut listener, Patience::default(), start);
        let answers = answers.await.unwrap();
        asking.await.unwrap();
        assert!(answers[0].starts_with("HTTP/1.1 200") && answers[0].ends_with("ok\n"));
        for answer in &answers[1..] {
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.contains("retry-after: 1"), "{answer}");
            assert!(answer.contains(r#""code":"starting""#), "{answer}");
        }
    }

    #[tokio::test]
    async fn who_keeps_a_connection_comes_to_the_host_that_has_started() {
        let mut listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
        let start = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request).await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            client
        };
        let mut kept = serve_start(&mut listener, Patience::default(), start).await;
        let routes = Router::new().route("/healthz", get(|| async { "started" }));
        let stop = CancellationToken::new();
        let serving = connections::serve(listener, routes, Patience::default(), stop.clone());
        let serving = tokio::spawn(serving);
        // Closed by the host, so that the next request is made on another.
        kept.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(asked(address, "GET /healthz").await.ends_with("started"));
        stop.cancel();
        serving.await.unwrap();
    }
}
