//! A file that lies anywhere, opened to be tried out.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::fs;

use support::{World, body, guest, transform};
use wasmhook_runtime::{Fault, LoadError, Reuse};

const PAGE: usize = 64 << 10;

#[tokio::test]
async fn a_lone_file_is_opened_with_the_manifest_beside_it() {
    let world = World::new();
    let file = world.folder.path().join("redact.wasm");
    fs::write(&file, guest("redact")).unwrap();
    let manifest = "reuse = \"fresh\"\n[config]\nfields = \"card\"\n[limits]\ncpu_time_ms = 7\n";
    fs::write(file.with_extension("toml"), manifest).unwrap();
    let plugin = world.host.open(&file, "acme", None).await.unwrap();
    assert_eq!(
        (plugin.name(), plugin.reuse(), plugin.limits().cpu_time_ms),
        ("redact", Reuse::Fresh, 7)
    );
    assert_eq!(
        body(&plugin, r#"{"card":"4242"}"#).await,
        r#"{"card":"[redacted]","schema_version":"1"}"#
    );
    let asked = Reuse::UpTo {
        calls: 3,
        seconds: 5,
    };
    let plugin = world.host.open(&file, "acme", Some(asked)).await.unwrap();
    assert_eq!(plugin.reuse(), asked, "it goes before the manifest");
    assert!(world.host.status().is_empty(), "no tenant has it");
    fs::write(&file, "text").unwrap();
    assert_eq!(
        world.host.open(&file, "acme", None).await.unwrap_err(),
        LoadError::NotWasm
    );
}

#[tokio::test]
async fn a_call_tells_the_memory_of_its_instance_whether_it_answers_or_not() {
    const LIMIT: usize = 8 << 20;
    let world = World::new();
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.put_hostile(
        "bomb",
        "hog",
        &format!("limits = {{ memory_bytes = {LIMIT} }}"),
    );
    world.put_hostile("spinner", "spin", "limits = { cpu_time_ms = 20 }");
    world.load().await;
    let call = transform(&world.transform("acme"), "{}").await.unwrap();
    assert!(
        call.memory >= PAGE && call.memory.is_multiple_of(PAGE),
        "{}",
        call.memory
    );
    let error = transform(&world.transform("bomb"), "{}").await.unwrap_err();
    assert!(matches!(error.fault, Fault::Memory { .. }), "{error}");
    assert!(
        error.memory > LIMIT / 2 && error.memory <= LIMIT,
        "{}",
        error.memory
    );
    let error = transform(&world.transform("spinner"), "{}")
        .await
        .unwrap_err();
    assert!(error.memory >= PAGE, "one that was stopped is seen, too");
}

#[tokio::test]
async fn a_check_tells_what_a_fresh_instance_costs() {
    let world = World::new();
    let file = world.folder.path().join("redact.wasm");
    fs::write(&file, guest("redact")).unwrap();
    let start = world.host.check(&file).await.unwrap().start.unwrap();
    assert!(start.memory >= PAGE && !start.time.is_zero(), "{start:?}");
}
