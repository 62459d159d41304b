//! The floor: the same client posting the same signed bodies with the same concurrency to the same
//! receiver, with no queue and no plugin. No host can be faster than this.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use wasmhook_core::request::Content;
use wasmhook_core::{
    BodyForm, DeliveryId, Endpoint, EndpointId, EndpointUrl, EventDraft, RequestBuilder,
    SafeHeaders, SecretName, SignatureProfile, SigningSecret, Subscription, TenantId,
};
use wasmhook_delivery::{AddressPolicy, Client, ClientConfig};

use crate::results::Results;
use crate::system::Receiver;
use crate::{cpu, scenario};

/// A sample secret, as published with the specification's vectors.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Requests under way at once: what the client is fastest with. Twice as many, the host's cap per endpoint, of which
/// most are on their way from or to the store, makes it slower by a sixth (measured).
const CONCURRENCY: usize = 256;
/// Requests made.
const REQUESTS: usize = 60_000;

/// Measures requests per second and the client's processor time.
pub(crate) async fn measure(results: &mut Results) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let before = cpu::seconds(receiver.process.pid()?)?;
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["floor-client", &receiver.url])
        .output()
        .await?;
    let client_cpu: f64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .context("the floor's client failed")?;
    let stats = receiver
        .wait_for(REQUESTS as u64, Duration::from_secs(5))
        .await?;
    let used = cpu::seconds(receiver.process.pid()?)? - before;
    results.set("floor_per_s", scenario::per_second(&stats));
    results.set(
        "floor_cpu_us",
        client_cpu * 1e6 / scenario::float(stats.count),
    );
    results.set("receiver_cpu_us", used * 1e6 / scenario::float(stats.count));
    receiver.process.stop().await
}

/// The client, in a process of its own. Prints the processor seconds it used.
pub(crate) async fn client(url: String) -> anyhow::Result<()> {
    let client = Arc::new(Client::new(ClientConfig {
        addresses: AddressPolicy {
            allow_private: true,
            ..AddressPolicy::default()
        },
        ..ClientConfig::default()
    })?);
    let tenant_id = TenantId::new("bench")?;
    let now = Timestamp::now();
    let endpoint = Arc::new(Endpoint {
        id: EndpointId::new("main")?,
        tenant_id,
        url: EndpointUrl::new(&format!("{url}/hook"))?,
        secrets: vec![SecretName::new("main")?],
        events: vec![Subscription::All],
        headers: SafeHeaders::default(),
        disabled: false,
        ordering: None,
        profile: SignatureProfile::Standard,
        body: BodyForm::Payload,
        created_at: now,
        updated_at: now,
    });
    let secrets = Arc::new([Arc::new(SigningSecret::parse(SECRET)?)]);
    let requests = Arc::new(RequestBuilder::default());
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..CONCURRENCY {
        let (client, endpoint, secrets) = (
            Arc::clone(&client),
            Arc::clone(&endpoint),
            Arc::clone(&secrets),
        );
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return anyhow::Ok(());
                }
                let at = Timestamp::now();
                let draft = EventDraft {
                    id: format!("evt_{number}"),
                    tenant: "bench".to_owned(),
                    event_type: "bench.event".to_owned(),
                    payload: scenario::payload().into(),
                    ..EventDraft::default()
                };
                let event = draft.accept(at, 1 << 20)?;
                let id = DeliveryId::new(format!("whdel_{number:032x}"))?;
                let content = Content::original(&event);
                let request =
                    requests.build(&id, &event, &endpoint, secrets.as_slice(), &content, at)?;
                let attempt = client.post(request, 1, at).await;
                anyhow::ensure!(
                    attempt.accepted(),
                    "the receiver refused a request: {attempt:?}"
                );
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    println!("{}", cpu::seconds(std::process::id())?);
    Ok(())
}
