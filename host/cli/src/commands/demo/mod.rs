//! `wasmhook demo`: the whole job on this machine, with real parts: the host with its embedded
//! store, sample components, and a receiver that verifies with a library that is not ours.

mod stage;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use wasmhook_core::DeliveryState;

use self::stage::{Stage, say};
use crate::args::Demo;
use crate::exit::{Coded, Exit};
use crate::{logging, output};

/// Events that flow while a plugin is replaced.
const STREAM: usize = 1_000;
/// The pause between two of them: 200 events per second.
const PACE: Duration = Duration::from_millis(5);
/// When in the stream the file is replaced.
const REPLACE_AT: usize = 300;
/// The sample components that the demo drops into tenants' folders.
const COMPONENTS: [&str; 3] = ["route.wasm", "redact.wasm", "tag_and_route.wasm"];

/// Runs all stages; fails when something did not arrive as it should.
pub(crate) async fn run(demo: Demo, json: bool) -> anyhow::Result<()> {
    for component in COMPONENTS {
        let file = demo.components.join(component);
        if !file.is_file() {
            return Err(Coded::new(
                Exit::NotFound,
                format!(
                    "the sample component {} is missing; `cargo xtask demo` builds it",
                    file.display()
                ),
            ));
        }
    }
    if demo.log {
        logging::start(&crate::config::Log::default())?;
    }
    let mut stage = Stage::set(&demo.components).await?;
    let ended = play(&mut stage, &demo.components).await;
    let closed = stage.close().await;
    ended?;
    let summary = closed?;
    if json {
        output::json(&summary)?;
    } else {
        summary.print();
    }
    if summary.unverified > 0 || summary.missing > 0 {
        bail!(
            "{} requests did not verify and {} deliveries are missing",
            summary.unverified,
            summary.missing
        );
    }
    Ok(())
}

async fn play(stage: &mut Stage, components: &Path) -> anyhow::Result<()> {
    catalog(stage).await?;
    plugins(stage).await?;
    retries_and_replay(stage).await?;
    hot_reload(stage, components).await
}

/// Stage 1: what the catalog lets in.
async fn catalog(stage: &mut Stage) -> anyhow::Result<()> {
    say(
        "1  Events are checked against the catalog: what is not listed is refused, and kept with the reason",
    );
    for event in [
        json!({"tenant": "acme", "type": "invoice.paied", "id": "evt_typo", "payload": {"total": 1}}),
        json!({"tenant": "acme", "type": "invoice.paid", "id": "", "payload": {"total": 1}}),
    ] {
        let (status, answer) = stage.push(&event).await?;
        if status != 422 {
            bail!("a bad event was answered with {status}");
        }
        say(&format!(
            "   HTTP {status}  {}",
            answer["error"]["message"].as_str().unwrap_or_default()
        ));
    }
    let kept = stage.store().rejected(10).await?.len();
    say(&format!(
        "   {kept} rejected events are kept, for `wasmhook events rejected`"
    ));
    Ok(())
}

/// Stage 2: the tenant's own components.
async fn plugins(stage: &mut Stage) -> anyhow::Result<()> {
    say(
        "\n2  acme's components choose the endpoint and rewrite the payload; the receiver verifies what arrives",
    );
    for (id, region) in [("evt_1", "eu"), ("evt_2", "us")] {
        let payload =
            json!({"invoice": id, "region": region, "total": 12.5, "card": "4242 4242 4242 4242"});
        say(&format!("   pushed    {id}  {payload}"));
        let event = json!({"tenant": "acme", "type": "invoice.paid", "id": id, "payload": payload});
        stage.push_accepted(&event, region).await?;
        let arrival = stage.arrival("acme", id, region).await?;
        say(&format!(
            "   arrived   {}  {} on {}",
            String::from_utf8_lossy(&arrival.body),
            if arrival.verified.is_ok() {
                "signature verified"
            } else {
                "NOT VERIFIED"
            },
            arrival.path,
        ));
    }
    let again = json!({"tenant": "acme", "type": "invoice.paid", "id": "evt_1", "payload": {}});
    let (status, answer) = stage.push(&again).await?;
    say(&format!(
        "   pushed evt_1 again: HTTP {status}, {}, no second delivery",
        answer["status"]
    ));
    Ok(())
}

/// Stage 3: a failing receiver.
async fn retries_and_replay(stage: &mut Stage) -> anyhow::Result<()> {
    say(
        "\n3  A receiver that answers 503 is tried again by policy, then the delivery is a dead letter",
    );
    let event = json!({"tenant": "globex", "type": "order.created", "id": "evt_3", "payload": {"order": 7}});
    stage.push_accepted(&event, "flaky").await?;
    let record = stage
        .wait_for_state("globex", "evt_3", "flaky", DeliveryState::DeadLetter)
        .await?;
    for attempt in &record.attempts {
        let next = attempt.next_at.map_or_else(
            || "no further attempt".to_owned(),
            |next| format!("next at {}", output::time(next)),
        );
        say(&format!(
            "   attempt {}  {}  {}  {next}",
            attempt.number,
            output::time(attempt.at),
            attempt.error.as_deref().unwrap_or("accepted"),
        ));
    }
    say(&format!(
        "   {} is {}",
        record.delivery.id, record.delivery.state
    ));
    say("   the receiver is repaired; support replays the delivery");
    stage.repair();
    stage
        .store()
        .replay(&record.delivery.tenant_id, &record.delivery.id)
        .await?;
    let record = stage
        .wait_for_state("globex", "evt_3", "flaky", DeliveryState::Succeeded)
        .await?;
    say(&format!(
        "   {} {} at attempt {}",
        record.delivery.id, record.delivery.state, record.delivery.attempt
    ));
    Ok(())
}

/// Stage 4: a plugin replaced while events flow.
async fn hot_reload(stage: &mut Stage, components: &Path) -> anyhow::Result<()> {
    say(&format!(
        "\n4  initech's plugin is replaced on disk while {STREAM} events flow, {} a second",
        1000 / PACE.as_millis()
    ));
    let mut pace = tokio::time::interval(PACE);
    for number in 0..STREAM {
        pace.tick().await;
        if number == REPLACE_AT {
            stage.replace_plugin(
                &components.join("tag_and_route.wasm"),
                "initech",
                "10-shape.wasm",
            )?;
            say(&format!(
                "   10-shape.wasm is replaced after event {number} by one that also sends EU orders to an archive"
            ));
        }
        let event = json!({
            "tenant": "initech", "type": "order.created", "id": format!("flow_{number}"),
            "payload": {"order": number, "region": "eu", "email": "someone@example.com"},
        });
        stage.push_accepted(&event, "main").await?;
    }
    let (by_old, by_new, took) = stage
        .versions(STREAM)
        .await
        .context("the stream of events")?;
    let failed = stage.failed_attempts("initech").await?;
    say(&format!(
        "   {by_old} were delivered by the old version, {by_new} by the new one, {failed} attempts failed"
    ));
    say(&format!(
        "   first delivery by the new version {} ms after the file was in place",
        took.as_millis()
    ));
    Ok(())
}
