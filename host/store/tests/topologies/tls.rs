//! Over TLS, as a user with few permissions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use wasmhook_store::redis::{RedisConfig, RedisStore, RedisStream, Tls};
use wasmhook_store::{EventStream, Store, StoreError};
use wasmhook_testing::{Certificates, RedisServer};

use crate::connecting::{events, refusal};

/// The words that README gives for the ACL user, but for its name and password.
fn documented_permissions() -> Vec<String> {
    let readme = include_str!("../../../../README.md");
    let (_, block) = readme.split_once("ACL SETUSER wasmhook on >…").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.split_whitespace().map(str::to_owned).collect()
}

/// A server on TLS that asks for a certificate, and has a user with few permissions.
struct Strict {
    _server: RedisServer,
    certificates: Certificates,
    port: u16,
}

impl Strict {
    fn start() -> Self {
        let certificates = Certificates::make().unwrap();
        let (server, port) = RedisServer::start_tls(&certificates, true, &[]).unwrap();
        let permissions = documented_permissions();
        let mut words = vec!["ACL", "SETUSER", "wasmhook", "on", ">secret"];
        words.extend(permissions.iter().map(String::as_str));
        let () = server.ask(&words).unwrap();
        Self {
            _server: server,
            certificates,
            port,
        }
    }

    fn config(&self) -> RedisConfig {
        let url = format!("rediss://wasmhook@localhost:{}", self.port);
        let mut config = RedisConfig::new(url);
        config.password = Some(SecretString::from("secret"));
        let (certificate, key) = self.certificates.client();
        config.tls = Tls {
            ca: Some(self.certificates.ca()),
            certificate: Some(certificate),
            key: Some(key),
        };
        config
    }
}

mod conformance {
    use super::*;

    async fn make() -> (Strict, Arc<dyn Store>) {
        let server = Strict::start();
        let store = RedisStore::connect(server.config()).await.unwrap();
        (server, Arc::new(store))
    }

    wasmhook_store::conformance_tests!(make);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_needs_no_more_than_the_documented_permissions() {
    let server = Strict::start();
    let mut config = server.config();
    config.claim_after = Duration::from_millis(1);
    let stream = RedisStream::connect(config.clone()).await.unwrap();
    stream.push(&events()).await.unwrap();
    let entries = stream.read(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!(entries.len(), 1);
    // Another host takes over.
    config.consumer = "heir".to_owned();
    let heir = RedisStream::connect(config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let entries = heir.read(10, Duration::from_secs(5)).await.unwrap();
    heir.acknowledge(&[entries[0].id]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_refused_at_once() {
    let server = Strict::start();
    let other = Certificates::make().unwrap();
    let start = Instant::now();
    let mut config = server.config();
    config.tls.ca = Some(other.ca());
    let error = refusal(config).await;
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    // Nor does the server trust a client without, or with another's.
    let mut config = server.config();
    config.tls.certificate = None;
    config.tls.key = None;
    let error = refusal(config).await;
    assert!(error.to_string().contains("ertificate"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "it tried on");
}
