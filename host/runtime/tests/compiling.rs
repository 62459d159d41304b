//! A component cannot take more time, memory or disk to compile than it may, whatever it is made of.

#![allow(clippy::unwrap_used, reason = "only tests call the helpers")]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use support::wasm::{claiming, component, importing, module, skipping};
use support::{World, guest, transform};
use wasmhook_runtime::{Compiler, LoadLimits, PluginHost, ServingState, Verdict};

/// Why a component is refused by a host with these limits.
async fn refusal(bytes: Vec<u8>, change: impl FnOnce(&mut LoadLimits)) -> String {
    let world = World::with(|config| change(&mut config.loading));
    world.put("acme", "10-heavy.wasm", bytes);
    world.load().await;
    let status = world.status("acme", "10-heavy");
    assert_eq!(status.state, ServingState::Refused);
    let sentence = world.refusal("acme", "10-heavy");
    let again = world.host.rescan().await;
    assert_eq!(again.compiling, 0, "it is judged once: {sentence}");
    sentence
}

/// Takes the compiler seconds: many functions, each with much to think about and unlike the others.
fn heavy(functions: usize) -> String {
    let mut extra = String::new();
    let work = "(local.set 0 (i64.mul (i64.add (local.get 0) (local.get 1)) (i64.rotl (local.get 1) (local.get 0))))\
                (local.set 1 (i64.xor (local.get 0) (i64.popcnt (local.get 1))))"
        .repeat(60);
    for number in 0..functions {
        write!(
            extra,
            "(func (param i64 i64) (result i64) (local.set 0 (i64.const {number})) {work} (local.get 0))"
        )
        .unwrap();
    }
    skipping(&extra)
}

#[tokio::test]
async fn a_compilation_that_takes_too_long_is_ended() {
    let sentence = refusal(component(&heavy(3_000)), |limits| {
        limits.compile_cpu_seconds = 1;
    })
    .await;
    assert_eq!(sentence, "compiling took longer than 1 s of processor time");
}

#[tokio::test]
async fn a_compilation_that_needs_too_much_memory_is_ended() {
    let sentence = refusal(component(&heavy(3_000)), |limits| {
        limits.compile_memory_bytes = 16 << 20;
    })
    .await;
    assert_eq!(sentence, "compiling needed more than 16 MiB of memory");
}

#[tokio::test]
async fn compiled_code_that_is_too_large_is_not_kept() {
    let sentence = refusal(guest("hostile"), |limits| limits.code_bytes = 64 << 10).await;
    assert_eq!(sentence, "the compiled code is larger than 64 KiB");
}

#[tokio::test]
async fn a_compiler_that_hangs_is_ended_and_one_that_is_missing_is_asked_again() {
    let world = World::with(|config| {
        config.loading.compile_wall_seconds = 1;
        config.compiler = Compiler::Child {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "exec sleep 600".into()],
            environment: Vec::new(),
        };
    });
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    assert_eq!(
        world.refusal("acme", "10-redact"),
        "compiling took longer than 1 s in all"
    );
    let world = World::with(|config| {
        config.compiler = Compiler::Child {
            program: "/nonexistent/compiler".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        };
    });
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    let sentence = world.refusal("acme", "10-redact");
    assert!(
        sentence
            .starts_with("the compiler is not available: /nonexistent/compiler cannot be started"),
        "{sentence}"
    );
    assert_eq!(
        world.host.rescan().await.compiling,
        1,
        "the file is not to blame"
    );
}

/// A compiler that notes in a file each time it is asked, and then does what the words say.
fn counting(notes: &Path, words: &str) -> Compiler {
    Compiler::Child {
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".into(),
            format!("echo >> {}; exec {words} \"$1\"", notes.display()).into(),
            "sh".into(),
        ],
        environment: Vec::new(),
    }
}

#[tokio::test]
async fn a_component_that_is_refused_for_good_is_compiled_once() {
    let world = World::new();
    let folder = world.folder.path();
    let notes = folder.join("notes");
    let asked = || std::fs::read(&notes).map_or(0, |notes| notes.len());
    let start = |compiler: Compiler, cpu_seconds, wall_seconds| {
        let mut config = support::config(folder);
        config.cache_dir = Some(folder.join("cache"));
        config.compiler = compiler;
        config.loading.compile_cpu_seconds = cpu_seconds;
        config.loading.compile_wall_seconds = wall_seconds;
        async move {
            let host = PluginHost::new(config).unwrap();
            host.rescan().await;
            host.settled().await;
            host
        }
    };
    let refusals = |host: &PluginHost| -> Vec<String> {
        let all = host.status().into_iter();
        all.map(|plugin| plugin.refused.unwrap()).collect()
    };
    let component = component(&heavy(6_000));
    world.put("acme", "10-heavy.wasm", component.clone());
    let compile = || counting(&notes, env!("CARGO_BIN_EXE_wasmhook-compile"));

    // What the machine may be to blame for is tried again.
    for starts in 1..=2 {
        let host = start(counting(&notes, "sleep 600 #"), 1, 1).await;
        assert_eq!(refusals(&host), ["compiling took longer than 1 s in all"]);
        assert_eq!(asked(), starts);
    }
    let told = "compiling took longer than 1 s of processor time";
    let host = start(compile(), 1, 600).await;
    assert_eq!(refusals(&host), [told]);
    assert_eq!(asked(), 3);
    // By another start, and by another tenant with the same bytes.
    world.put("globex", "10-heavy.wasm", component);
    let host = start(compile(), 1, 600).await;
    assert_eq!(refusals(&host), [told, told]);
    assert_eq!(asked(), 3, "nothing was compiled again");
    // With more time it gets another chance, which on a fast machine is enough.
    world.remove("globex", "10-heavy.wasm");
    start(compile(), 2, 600).await;
    assert_eq!(asked(), 4);
}

#[tokio::test]
async fn a_component_that_was_refused_for_memory_is_compiled_again_when_it_may_have_more() {
    let world = World::new();
    let folder = world.folder.path();
    let notes = folder.join("notes");
    let start = async |memory_bytes| {
        let mut config = support::config(folder);
        config.cache_dir = Some(folder.join("cache"));
        config.compiler = counting(&notes, env!("CARGO_BIN_EXE_wasmhook-compile"));
        config.loading.compile_memory_bytes = memory_bytes;
        config.loading.compile_cpu_seconds = 10;
        let host = PluginHost::new(config).unwrap();
        host.rescan().await;
        host.settled().await;
        let asked = std::fs::read(&notes).unwrap().len();
        (host.status()[0].refused.clone(), asked)
    };
    world.put("acme", "10-heavy.wasm", component(&heavy(3_000)));
    let told = |size: &str| Some(format!("compiling needed more than {size} of memory"));
    assert_eq!(start(16 << 20).await, (told("16 MiB"), 1));
    assert_eq!(start(16 << 20).await, (told("16 MiB"), 1));
    assert_eq!(start(8 << 20).await, (told("8 MiB"), 1));
    // What comes of it then is another matter.
    assert_eq!(start(32 << 20).await.1, 2);
}

#[tokio::test]
async fn a_tenant_whose_components_take_long_does_not_keep_others_from_compiling() {
    let world = World::with(|config| config.loading.compile_cpu_seconds = 2);
    let slow = component(&heavy(3_000));
    for name in ["10-a.wasm", "20-b.wasm", "30-c.wasm"] {
        world.put("slow", name, &slow);
    }
    world.host.rescan().await;
    world.put("quick", "10-redact.wasm", guest("redact"));
    world.host.rescan().await;
    let served = async {
        while world.tenant("quick").transforms.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, served)
        .await
        .unwrap();
    assert_eq!(
        world.status("slow", "30-c").state,
        ServingState::Compiling,
        "the third of the slow ones is not yet done"
    );
}

#[tokio::test]
async fn the_compiler_sees_nothing_of_the_hosts_environment() {
    let world = World::with(|config| {
        config.compiler = Compiler::Child {
            program: "/bin/sh".into(),
            // What it says on standard error becomes the refusal.
            arguments: vec![
                "-c".into(),
                "echo \"{\\\"Invalid\\\":\\\"$PWD [$(env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e ^_ | tr '\\n' ' ')]\\\"}\" >&2; exit 1"
                    .into(),
            ],
            environment: Vec::new(),
        };
    });
    world.put("acme", "10-redact.wasm", guest("redact"));
    world.load().await;
    assert_eq!(
        world.refusal("acme", "10-redact"),
        "the file is not a valid component: / []"
    );
}

#[tokio::test]
async fn a_component_with_too_many_or_too_large_parts_is_refused_before_it_is_compiled() {
    let many = component(&skipping(&"(func)".repeat(101)));
    let sentence = refusal(many, |limits| limits.functions = 100).await;
    assert_eq!(sentence, "the component has more than 100 functions");
    let large = format!("(func {})", "nop ".repeat(2 << 20));
    let sentence = refusal(component(&skipping(&large)), |_| {}).await;
    assert_eq!(
        sentence,
        "the component has more than 1048576 bytes in one function"
    );
    let sentence = refusal(claiming(&"(core module)".repeat(65)), |_| {}).await;
    assert_eq!(sentence, "the component has more than 64 core modules");
    let nested = format!("{}{}", "(component ".repeat(20), ")".repeat(20));
    let sentence = refusal(claiming(&nested), |_| {}).await;
    assert_eq!(
        sentence,
        "the component has more than 8 components inside one another"
    );
}

#[tokio::test]
async fn types_that_are_nested_deep_are_refused_by_the_compiler_and_not_by_a_crash() {
    let mut chain = "(type $t0 (list u8))".to_owned();
    for depth in 1..2_000 {
        write!(chain, "(type $t{depth} (list $t{}))", depth - 1).unwrap();
    }
    let sentence = refusal(claiming(&chain), |_| {}).await;
    assert!(
        sentence.starts_with("the file is not a valid component: ")
            || sentence.starts_with("the component cannot be compiled: "),
        "{sentence}"
    );
    // A type that doubles at each step: small in the file, without end when it is written out.
    let mut doubling = "(type $t0 (tuple u8 u8))".to_owned();
    for depth in 1..64 {
        write!(doubling, "(type $t{depth} (tuple $t{0} $t{0}))", depth - 1).unwrap();
    }
    let sentence = refusal(claiming(&doubling), |_| {}).await;
    assert!(
        sentence.starts_with("the file is not a valid component: "),
        "{sentence}"
    );
}

#[tokio::test]
async fn ten_thousand_functions_are_served() {
    let world = World::new();
    world.put(
        "acme",
        "10-many.wasm",
        component(&skipping(
            &"(func (result i32) (i32.const 7))".repeat(10_000),
        )),
    );
    world.load().await;
    let call = transform(&world.transform("acme"), "{}").await.unwrap();
    assert_eq!(call.value, Verdict::Skip("none".to_owned()));
}

#[tokio::test]
async fn a_core_module_that_embeds_the_contract_is_made_a_component() {
    let world = World::new();
    let file = module(&importing(
        r#"(import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))"#,
        "",
    ));
    world.put("acme", "10-core.wasm", &file);
    let foreign = module(&importing(r#"(import "env" "exec" (func))"#, ""));
    world.put("other", "10-core.wasm", foreign);
    world.load().await;
    let call = transform(&world.transform("acme"), "{}").await.unwrap();
    assert_eq!(call.value, Verdict::Skip("none".to_owned()));
    assert_eq!(
        call.digest,
        wasmhook_runtime::Digest::of(&file),
        "its version is the file's"
    );
    assert_eq!(
        world.refusal("other", "10-core"),
        "the component imports env, which plugins are not granted"
    );
    let path = world.file("acme", "10-core.wasm");
    let report = world.host.check(&path).await.unwrap();
    assert!(
        report.outline.adapted && report.refusal.is_none(),
        "{report:?}"
    );
    assert_eq!(report.outline.imports[0].name, "wasi_snapshot_preview1");
}
