//! The client over real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wasmhook_core::attempt::{Attempt, ErrorClass, Outcome, Wait};
use wasmhook_core::{EndpointUrl, OutgoingRequest};
use wasmhook_delivery::{AddressPolicy, Client, ClientConfig};

/// A receiver that answers every request with the same bytes, and keeps connections open.
struct Receiver {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
}

/// What follows the fixed answer.
#[derive(Clone, Copy)]
enum Then {
    NextRequest,
    Drip,
    Flood,
    Close,
}

async fn receiver(answer: &'static str, then: Then) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, answer, then, seen.clone()));
        }
    });
    Receiver {
        address,
        accepted,
        requests,
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &'static str,
    then: Then,
    seen: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut request = Vec::new();
        while !request.ends_with(BODY) {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => request.extend_from_slice(&buffer[..read]),
            }
            // A TLS greeting is not a request, and is answered all the same.
            if request.first() != Some(&b'P') {
                break;
            }
        }
        let _ = seen.send(request);
        stream.write_all(answer.as_bytes()).await?;
        match then {
            Then::NextRequest => {}
            Then::Close => return Ok(()),
            Then::Drip => loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            Then::Flood => loop {
                stream.write_all(b"10\r\n0123456789abcdef\r\n").await?;
            },
        }
    }
}

const BODY: &[u8] = br#"{"a": 1,  "b":"\u00e4"}"#;

fn request(url: &str) -> OutgoingRequest {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert(
        "webhook-signature",
        HeaderValue::from_static("v1,abc v1,def"),
    );
    OutgoingRequest {
        url: EndpointUrl::new(url).unwrap(),
        headers,
        body: Bytes::from_static(BODY),
    }
}

fn config() -> ClientConfig {
    ClientConfig {
        addresses: AddressPolicy {
            allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..AddressPolicy::default()
        },
        ..ClientConfig::default()
    }
}

async fn post(config: ClientConfig, url: &str) -> Attempt {
    Client::new(config)
        .unwrap()
        .post(request(url), 3, Timestamp::UNIX_EPOCH)
        .await
}

#[tokio::test]
async fn the_request_arrives_byte_exact() {
    let mut receiver = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::NextRequest).await;
    let attempt = post(config(), &format!("http://{}/hook?t=1", receiver.address)).await;
    assert!(attempt.accepted(), "{attempt:?}");
    assert_eq!((attempt.number, attempt.at), (3, Timestamp::UNIX_EPOCH));
    assert_eq!(attempt.response_excerpt, None);
    let seen = receiver.requests.recv().await.unwrap();
    let split = seen
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert_eq!(&seen[split..], BODY);
    let head = String::from_utf8(seen[..split].to_vec()).unwrap();
    assert!(head.starts_with("POST /hook?t=1 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("webhook-signature: v1,abc v1,def\r\n"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("accept-encoding"), "{head}");
}

#[tokio::test]
async fn answers_are_classified_and_redirects_not_followed() {
    for (answer, status, retryable) in [
        (
            "HTTP/1.1 302 Found\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n",
            302,
            false,
        ),
        (
            "HTTP/1.1 410 Gone\r\ncontent-length: 3\r\n\r\nbye",
            410,
            false,
        ),
        ("HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n", 429, true),
        ("HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n", 503, true),
    ] {
        let mut receiver = receiver(answer, Then::NextRequest).await;
        let attempt = post(config(), &format!("http://{}/", receiver.address)).await;
        assert_eq!(attempt.status_code, Some(status));
        assert_eq!(
            (attempt.outcome, attempt.retryable),
            (Outcome::Failed, retryable)
        );
        assert_eq!(
            attempt.response_excerpt.as_deref(),
            (status == 410).then_some("bye")
        );
        receiver.requests.recv().await.unwrap();
        assert!(
            receiver.requests.try_recv().is_err(),
            "a second request was made"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_is_away_for_now_says_for_how_long() {
    for (answer, wait) in [
        (
            "HTTP/1.1 503 Down\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n",
            Some(Wait::AtLeast(Duration::from_secs(120))),
        ),
        (
            "HTTP/1.1 429 Slow\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             retry-after: Sun, 06 Nov 1994 08:50:07 GMT\r\ncontent-length: 0\r\n\r\n",
            Some(Wait::AtLeast(Duration::from_secs(30))),
        ),
        (
            "HTTP/1.1 500 Oh\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n",
            None,
        ),
    ] {
        let receiver = receiver(answer, Then::NextRequest).await;
        let attempt = post(config(), &format!("http://{}/", receiver.address)).await;
        assert_eq!(attempt.wait, wait, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_is_there_for_who_judges_it_and_not_in_a_debug_print() {
    let answer = "HTTP/1.1 200 OK\r\nx-queue: full\r\ncontent-length: 10\r\n\r\n0123456789";
    for (cap, body, complete) in [(4096, "0123456789", true), (4, "0123", false)] {
        let receiver = receiver(answer, Then::NextRequest).await;
        let config = ClientConfig {
            response_cap: cap,
            ..config()
        };
        let url = format!("http://{}/", receiver.address);
        let (attempt, answer) = Client::new(config)
            .unwrap()
            .exchange(request(&url), 1, Timestamp::UNIX_EPOCH)
            .await;
        let answer = answer.unwrap();
        assert_eq!(attempt.status_code, Some(answer.status));
        assert_eq!(answer.headers["x-queue"], "full");
        assert_eq!(
            (&answer.body[..], answer.complete),
            (body.as_bytes(), complete)
        );
        let shown = format!("{answer:?}");
        assert!(
            !shown.contains("0123") && !shown.contains("full"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let receiver = receiver(answer, Then::NextRequest).await;
    let client = Client::new(ClientConfig {
        response_cap: 2,
        ..config()
    })
    .unwrap();
    for _ in 0..5 {
        let request = request(&format!("http://{}/", receiver.address));
        assert!(
            client
                .post(request, 1, Timestamp::UNIX_EPOCH)
                .await
                .accepted()
        );
        // The connection goes back to the pool in a task of its own.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(receiver.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_status_counts_though_its_body_drips_beyond_the_deadline_or_breaks_off() {
    for (status, accepted) in [("200 OK", true), ("503 Service Unavailable", false)] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 10000\r\n\r\nfive!").leak();
        for then in [Then::Drip, Then::Close] {
            let receiver = receiver(answer, then).await;
            let config = ClientConfig {
                timeout: Duration::from_millis(300),
                ..config()
            };
            let attempt = post(config, &format!("http://{}/", receiver.address)).await;
            assert_eq!(attempt.accepted(), accepted, "{attempt:?}");
            let read = attempt.response_excerpt.unwrap();
            assert!(read.starts_with("five!"), "{read:?}");
        }
    }
}

#[tokio::test]
async fn a_dripping_head_meets_the_one_deadline() {
    let receiver = receiver("HTTP/1.1 200 OK\r\nx-slow: ", Then::Drip).await;
    let config = ClientConfig {
        timeout: Duration::from_millis(300),
        ..config()
    };
    let attempt = post(
        config,
        &format!("http://{}/?token=hunter2", receiver.address),
    )
    .await;
    assert_eq!(attempt.error_class, Some(ErrorClass::Timeout));
    assert!(attempt.retryable);
    assert_eq!(
        attempt.error.unwrap(),
        "the exchange did not end within its deadline"
    );
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_cap() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let receiver = receiver(answer, Then::Flood).await;
    let attempt = post(config(), &format!("http://{}/", receiver.address)).await;
    assert!(attempt.accepted(), "{attempt:?}");
    assert_eq!(attempt.response_excerpt.unwrap().len(), 4096);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let receiver = receiver("220 smtp.example ESMTP\r\n\r\n", Then::Close).await;
    let attempt = post(config(), &format!("http://{}/", receiver.address)).await;
    assert_eq!(attempt.error_class, Some(ErrorClass::Protocol));
}

#[tokio::test]
async fn a_failed_handshake_is_a_tls_error() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let receiver = receiver(answer, Then::Close).await;
        let attempt = post(config(), &format!("https://{}/", receiver.address)).await;
        assert_eq!(attempt.error_class, Some(ErrorClass::Tls), "{answer:?}");
    }
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let attempt = post(config(), &format!("http://{address}/")).await;
    assert_eq!(attempt.error_class, Some(ErrorClass::Connect));
    assert_eq!(attempt.outcome, Outcome::TransportError);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_dns_error() {
    let attempt = post(config(), "http://nowhere.invalid/").await;
    assert_eq!(attempt.error_class, Some(ErrorClass::Dns));
}

#[tokio::test]
async fn private_addresses_are_refused_however_they_are_written() {
    let receiver = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::NextRequest).await;
    let port = receiver.address.port();
    let client = Client::new(ClientConfig::default()).unwrap();
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
    ] {
        let request = request(&format!("http://{host}:{port}/"));
        let attempt = client.post(request, 1, Timestamp::UNIX_EPOCH).await;
        assert_eq!(
            attempt.error_class,
            Some(ErrorClass::AddressRefused),
            "{host}"
        );
    }
    assert_eq!(receiver.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_allowed_name_is_reached() {
    let receiver = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::NextRequest).await;
    let config = ClientConfig {
        addresses: AddressPolicy {
            allow_private: true,
            ..AddressPolicy::default()
        },
        ..ClientConfig::default()
    };
    let attempt = post(
        config,
        &format!("http://localhost:{}/", receiver.address.port()),
    )
    .await;
    assert!(attempt.accepted(), "{attempt:?}");
}
