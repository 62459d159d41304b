//! Every limit stops what goes over it and says which it was.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{World, body, guest, resolve, transform};
use wasmhook_runtime::{Fault, PluginError};

async fn fault_of(behaviour: &str, manifest: &str) -> PluginError {
    let world = World::new();
    world.put_hostile("acme", behaviour, manifest);
    world.load().await;
    transform(&world.transform("acme"), "{\"secret\":\"s3cr3t\"}")
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_guest_that_spins_is_stopped_and_neighbours_go_on_meanwhile() {
    let world = World::new();
    world.put_hostile("spinner", "spin", "limits = { cpu_time_ms = 50 }");
    world.put("neighbour", "10-redact.wasm", guest("redact"));
    world.load().await;
    let (spinner, neighbour) = (world.transform("spinner"), world.transform("neighbour"));
    // One thread for both: the neighbour gets on only if the spinning guest lets it.
    let stopped = Arc::new(AtomicBool::new(false));
    let spinning = {
        let stopped = Arc::clone(&stopped);
        tokio::spawn(async move {
            let error = transform(&spinner, "{}").await.unwrap_err();
            stopped.store(true, Ordering::SeqCst);
            error
        })
    };
    tokio::task::yield_now().await;
    let mut meanwhile = 0;
    while !stopped.load(Ordering::SeqCst) {
        body(&neighbour, "{}").await;
        meanwhile += usize::from(!stopped.load(Ordering::SeqCst));
        tokio::task::yield_now().await;
    }
    assert!(
        meanwhile > 0,
        "no call of the neighbour ended while the guest was spinning"
    );
    let error = spinning.await.unwrap();
    assert_eq!(error.fault, Fault::CpuTime { limit_ms: 50 });
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: used more than 50 ms of processor time"
    );
    assert!(
        error.cpu.as_millis() >= 50,
        "what it spent is told: {:?}",
        error.cpu
    );
}

#[tokio::test]
async fn a_guest_that_sleeps_is_stopped_and_not_charged_for_waiting() {
    let error = fault_of("sleep", "limits = { wall_time_ms = 300 }").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: took longer than 300 ms"
    );
    assert!(error.cpu.as_millis() < 200, "{:?}", error.cpu);
}

#[tokio::test]
async fn memory_is_bounded() {
    let error = fault_of("hog", "").await;
    assert_eq!(
        error.fault,
        Fault::Memory {
            limit_bytes: 64 << 20
        }
    );
    let error = fault_of("hog", "limits = { memory_bytes = 4194304 }").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: needed more than 4194304 bytes of memory"
    );
}

#[tokio::test]
async fn a_panic_is_a_trap_without_its_text() {
    let error = fault_of("panic", "").await;
    let text = format!("{error} {error:?}");
    assert!(
        !text.contains("s3cr3t") && !text.contains("could not handle"),
        "{text}"
    );
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: trapped: unreachable code, such as a panic or an abort"
    );
}

#[tokio::test]
async fn ending_the_process_and_endless_recursion_end_the_call_only() {
    let error = fault_of("exit", "").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: trapped: it ended its own process"
    );
    let error = fault_of("recurse", "").await;
    assert!(
        matches!(
            error.fault,
            Fault::Stack
                | Fault::Trap {
                    class: "memory access out of bounds"
                }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_guest_hands_over_is_bounded() {
    let error = fault_of("big-body", "").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: handed over more than 1310720 bytes at once"
    );
    let error = fault_of("big-log", "").await;
    assert_eq!(error.fault.class(), "lifted");
    let error = fault_of("echo", "limits = { output_bytes = 10 }").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: returned more than 10 bytes"
    );
    let error = fault_of("many-headers", "").await;
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: returned more than 64 headers"
    );
    let world = World::new();
    world.put_hostile("acme", "many-choices", "");
    world.load().await;
    let plugins = world.tenant("acme");
    let error = resolve(&plugins.resolvers[0], "{}").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: chose more than 256 endpoints"
    );
}

#[tokio::test]
async fn too_many_calls_at_once_wait_and_then_give_up() {
    let world = World::with(|config| {
        config.max_concurrent_calls = 1;
        config.place_wait = Duration::from_millis(600);
    });
    world.put_hostile("acme", "sleep", "limits = { wall_time_ms = 400 }");
    world.load().await;
    let plugin = world.transform("acme");
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let plugin = Arc::clone(&plugin);
            tokio::spawn(async move { transform(&plugin, "{}").await.unwrap_err().fault.class() })
        })
        .collect();
    let mut classes = Vec::new();
    for call in calls {
        classes.push(call.await.unwrap());
    }
    assert!(classes.contains(&"exhausted"), "{classes:?}");
    assert!(
        classes
            .iter()
            .all(|class| ["exhausted", "wall-time"].contains(class)),
        "{classes:?}"
    );
}

#[tokio::test]
async fn a_start_function_is_bounded_too() {
    let world = World::new();
    world.put("acme", "10-start.toml", "limits = { cpu_time_ms = 50 }");
    world.put(
        "acme",
        "10-start.wasm",
        wat::parse_str(SPINNING_START).unwrap(),
    );
    world.load().await;
    assert_eq!(
        world.refusal("acme", "10-start"),
        "the component does not start: used more than 50 ms of processor time"
    );
}

/// Spins before anything can be called.
const SPINNING_START: &str = r#"
(component
  (core module $m
    (func (export "f"))
    (func $spin (loop $again (br $again)))
    (start $spin))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $e (export "transform" (func $f)))
  (export "wasmhook:plugin/transform@1.0.0" (instance $e)))
"#;
