//! Plugins judge what receivers answered.

mod support;

use std::sync::Arc;

use support::{ENDPOINT, PATIENCE, World, event, guest, transform};
use wasmhook_runtime::{Call, Classification, Fault, Judgement, Plugin, PluginError, ResponseView};

async fn judge(
    plugin: &Plugin,
    status: u16,
    body: &str,
    so_far: Judgement,
) -> Result<Call<Classification>, PluginError> {
    let response = ResponseView {
        status,
        headers: &[("content-type", "application/json")],
        body: body.as_bytes(),
        complete: true,
    };
    let event = event("{}");
    let call = plugin.classify(&event, &ENDPOINT, &response, so_far);
    tokio::time::timeout(PATIENCE, call)
        .await
        .expect("the call hangs")
}

async fn world(config: &str) -> (World, Arc<Plugin>) {
    let world = World::new();
    world.put("acme", "20-judge.toml", format!("[config]\n{config}"));
    world.put("acme", "20-judge.wasm", guest("judge"));
    world.load().await;
    let plugins = world.tenant("acme");
    assert!(plugins.transforms.is_empty() && plugins.resolvers.is_empty());
    let plugin = Arc::clone(&plugins.classifiers[0]);
    (world, plugin)
}

#[tokio::test]
async fn an_answer_is_taken_for_what_its_body_says() {
    let config = "accepted = \"409\"\nok = \"ok\"\nerror = \"error\"\nretry = \"rate_limited\"\nwait = \"7\"\n";
    let (world, plugin) = world(config).await;
    let accepted = Judgement::Accepted;
    for (status, body, so_far, expected) in [
        (200, r#"{"ok":true}"#, accepted, accepted),
        (
            200,
            r#"{"ok":false,"error":"rate_limited"}"#,
            accepted,
            Judgement::Retry(Some(7)),
        ),
        (
            200,
            r#"{"ok":false,"error":"bad_token"}"#,
            accepted,
            Judgement::GiveUp,
        ),
        (409, "", Judgement::GiveUp, accepted),
        (
            503,
            "",
            Judgement::Retry(Some(60)),
            Judgement::Retry(Some(60)),
        ),
    ] {
        let call = judge(&plugin, status, body, so_far).await.unwrap();
        assert_eq!(call.value.judgement, expected, "{status} {body}");
        assert_eq!(
            call.value.reason.is_some(),
            expected != so_far,
            "{status} {body}"
        );
    }
    let error = judge(&plugin, 200, "<html>", accepted).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Guest { .. }), "{error}");
    let calls = world.status("acme", "20-judge").calls;
    assert_eq!((calls.calls, calls.errors), (6, 1));
}

#[tokio::test]
async fn who_only_judges_does_not_transform_and_the_other_way_round() {
    let (world, plugin) = world("").await;
    let error = transform(&plugin, "{}").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 20-judge: does not export wasmhook:plugin/transform@1.0.0"
    );
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    let error = judge(&world.transform("acme"), 200, "", Judgement::Accepted)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 10-redact: does not export wasmhook:plugin/classify@1.0.0"
    );
}
