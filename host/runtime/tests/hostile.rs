//! Guests that mean harm: each meets its limit, the process stays well, and neighbours go on.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use support::wasm::{component, skipping};
use support::{PATIENCE, World, body, guest, resolve, transform};
use wasmhook_runtime::{Fault, Limits, Plugin};

/// Limits that each guest meets soon, however busy the machine.
fn limits() -> Limits {
    Limits {
        cpu_time_ms: 300,
        wait_time_ms: 200,
        wall_time_ms: 60_000,
        ..Limits::default()
    }
}

/// A neighbour that calls its plugin all the time, on the threads that the hostile guests run on.
struct Neighbour {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Neighbour {
    fn start(plugin: Arc<Plugin>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&calls));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                assert_eq!(body(&plugin, "{}").await, r#"{"schema_version":"1"}"#);
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        Self { stop, calls, task }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until more than `before` calls have ended.
    async fn goes_on(&self, before: usize) {
        let progress = async {
            while self.calls() <= before {
                tokio::task::yield_now().await;
            }
        };
        let progress = tokio::time::timeout(support::PATIENCE, progress).await;
        progress.expect("the neighbour is kept from being served");
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("a call of the neighbour failed");
    }
}

async fn world() -> (World, Neighbour) {
    let world = World::with(|config| {
        config.limits = limits();
        config.host_log = true;
    });
    world.put("neighbour", "10-redact.wasm", guest("redact"));
    world.load().await;
    let neighbour = Neighbour::start(world.transform("neighbour"));
    (world, neighbour)
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

/// What a guest does, and what its call comes to.
const MISBEHAVIOURS: [(&str, &str); 17] = [
    ("spin", "used more than 300 ms of processor time"),
    ("copy-memory", "used more than 300 ms of processor time"),
    ("sleep", "waited longer than 200 ms in calls to the host"),
    ("doze", "waited longer than 200 ms in calls to the host"),
    ("hog", "needed more than 67108864 bytes of memory"),
    (
        "panic",
        "trapped: unreachable code, such as a panic or an abort",
    ),
    ("exit", "trapped: it ended its own process"),
    ("big-body", "handed over more than 1310720 bytes at once"),
    ("big-log", "handed over more than 1310720 bytes at once"),
    ("huge-header", "handed over more than 1310720 bytes at once"),
    ("many-headers", "returned more than 64 headers"),
    (
        "flood-log",
        "made more than 10000 calls to wasmhook:plugin/log",
    ),
    ("flood-print", "made more than 10000 calls to wasi:io"),
    ("flood-clock", "made more than 10000 calls to wasi:clocks"),
    ("flood-random", "asked for more than 65536 random bytes"),
    ("huge-random", "asked for more than 65536 random bytes"),
    ("leak-handles", "needed more than 1000 resource handles"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misbehaviour_meets_its_limit_while_a_neighbour_goes_on() {
    let (world, neighbour) = world().await;
    for (behaviour, _) in MISBEHAVIOURS {
        world.put_hostile(&format!("t-{behaviour}"), behaviour, "");
    }
    world.load().await;
    for (behaviour, outcome) in MISBEHAVIOURS {
        let plugin = world.transform(&format!("t-{behaviour}"));
        let before = neighbour.calls();
        let error = transform(&plugin, "{\"secret\":\"s3cr3t\"}")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("plugin 10-hostile: {outcome}"),
            "{behaviour}"
        );
        assert!(!format!("{error:?}").contains("s3cr3t"), "{behaviour}");
        // It is called until the neighbour has been served beside it. For how long a busy machine leaves the
        // neighbour's thread aside has nothing to do with how often a guest can trap meanwhile.
        let begun = Instant::now();
        while neighbour.calls() == before && begun.elapsed() < PATIENCE {
            assert!(transform(&plugin, "{}").await.is_err(), "{behaviour}");
        }
        assert!(
            neighbour.calls() > before,
            "{behaviour} kept the neighbour from being served"
        );
    }
    neighbour.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_spinning_guests_takes_turns_and_each_gets_its_time() {
    let (world, neighbour) = world().await;
    let tenants = ["a", "b", "c"];
    for tenant in tenants {
        world.put_hostile(tenant, "spin", "limits = { cpu_time_ms = 100 }");
    }
    world.load().await;
    let mut calls = Vec::new();
    for tenant in tenants {
        for _ in 0..4 {
            let plugin = world.transform(tenant);
            calls.push(tokio::spawn(async move {
                transform(&plugin, "{}").await.unwrap_err()
            }));
        }
    }
    for call in calls {
        let before = neighbour.calls();
        let error = call.await.unwrap();
        assert_eq!(error.fault, Fault::CpuTime { limit_ms: 100 });
        neighbour.goes_on(before).await;
    }
    neighbour.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_starts_badly_is_refused_while_a_neighbour_goes_on() {
    let (world, neighbour) = world().await;
    let memories = "(memory 1)".repeat(4);
    let tables = "(table 1 funcref)".repeat(17);
    let bad = [
        (
            "spin",
            "(func $s (loop (br 0))) (start $s)",
            "the component does not start: used more than 300 ms of processor time",
        ),
        (
            "recurse",
            "(func $s (call $s)) (start $s)",
            "the component does not start: exhausted its call stack",
        ),
        (
            "memory-at-once",
            "(memory 1025)",
            "the component has more than 67108864 bytes of memory to begin with",
        ),
        (
            "memory-bit-by-bit",
            "(func $s (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable) (start $s)",
            "the component does not start: needed more than 67108864 bytes of memory",
        ),
        (
            "memories",
            &memories,
            "the component has more than 4 memories in one module",
        ),
        (
            "table-at-once",
            "(table 100001 funcref)",
            "the component has more than 100000 table elements to begin with",
        ),
        (
            "table-bit-by-bit",
            "(table $t 1 funcref) (func $s (loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable) (start $s)",
            "the component does not start: needed more than 100000 table elements",
        ),
        (
            "tables",
            &tables,
            "the component has more than 16 tables in one module",
        ),
        (
            "trap",
            "(func $s unreachable) (start $s)",
            "the component does not start: trapped: unreachable code, such as a panic or an abort",
        ),
    ];
    for (name, extra, sentence) in bad {
        let before = neighbour.calls();
        world.put(name, "10-bad.wasm", component(&skipping(extra)));
        world.load().await;
        assert_eq!(world.refusal(name, "10-bad"), sentence, "{name}");
        assert!(world.tenant(name).transforms.is_empty());
        neighbour.goes_on(before).await;
    }
    let instances = format!(
        "(core module $m) {} (instance $e) (export \"wasmhook:plugin/transform@1.0.0\" (instance $e))",
        "(core instance (instantiate $m))".repeat(33)
    );
    world.put(
        "instances",
        "10-bad.wasm",
        wat::parse_str(format!("(component {instances})")).unwrap(),
    );
    world.load().await;
    assert_eq!(
        world.refusal("instances", "10-bad"),
        "the component does not fit: the component transitively contains 33 core module instances, \
         which exceeds the configured maximum of 32 in the pooling allocator"
    );
    neighbour.stop().await;
}

#[tokio::test]
async fn a_resolver_cannot_flood_either() {
    let (world, neighbour) = world().await;
    world.put_hostile("acme", "many-choices", "");
    world.load().await;
    let plugins = world.tenant("acme");
    let error = resolve(&plugins.resolvers[0], "{}").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin 10-hostile: chose more than 256 endpoints"
    );
    neighbour.stop().await;
}

#[tokio::test]
async fn memory_stays_flat_however_often_guests_misbehave() {
    let (world, neighbour) = world().await;
    let kinds = [
        "hog",
        "panic",
        "big-body",
        "leak-handles",
        "flood-random",
        "big-log",
    ];
    for kind in kinds {
        world.put_hostile(kind, kind, "");
    }
    world.load().await;
    let round = async || {
        for kind in kinds {
            assert!(transform(&world.transform(kind), "{}").await.is_err());
        }
    };
    for _ in 0..5 {
        round().await;
    }
    let before = resident();
    for _ in 0..20 {
        round().await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "120 calls left {grown} bytes behind");
    neighbour.stop().await;
}

#[tokio::test]
async fn an_instance_that_leaks_is_retired_before_a_call_fails_for_it() {
    let world = World::with(|config| config.reuse = support::REUSED);
    world.put_hostile("memory", "leak", "");
    world.put_hostile("handles", "leak-some-handles", "");
    world.load().await;
    for tenant in ["memory", "handles"] {
        let plugin = world.transform(tenant);
        let mut reused = false;
        for _ in 0..40 {
            reused |= body(&plugin, "{}").await != "1";
        }
        assert!(
            reused,
            "{tenant}: instances are used again for as long as it is safe"
        );
    }
}
