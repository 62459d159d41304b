//! `plugin check`: what a component is, and whether the host would serve it.

use serde_json::{Value, json};

use crate::desk::{Desk, text};
use crate::support::component;

#[test]
fn check_tells_the_contract_imports_and_costs() {
    let desk = Desk::new();
    let redact = component("redact.wasm");
    let report = desk.json(&["plugin", "check", text(&redact)]);
    assert_eq!(report["exports"], json!(["transform"]));
    assert!(report["contract_version"].is_string());
    let imports = report["imports"].as_array().unwrap();
    assert!(imports.iter().all(|import| import["granted"] == true));
    assert!(
        imports.iter().any(|import| import["name"]
            .as_str()
            .unwrap()
            .starts_with("wasmhook:plugin/config@")),
        "{report}"
    );
    assert!(report["compile_ms"].is_u64());
    assert!(report["instance"]["start_us"].is_u64());
    assert!(report["instance"]["memory_bytes"].as_u64().unwrap() >= 64 << 10);
    let words = desk.says(&["plugins", "check", text(&redact)]);
    assert!(
        words.contains("instance  fresh: ") && words.contains("verdict   the host would serve it")
    );
    let import = |name: &str| {
        let line = words.lines().find(|line| line.contains(name)).unwrap();
        line.rsplit_once(" (").unwrap().1
    };
    assert_eq!(import("wasmhook:plugin/config@"), "granted)");
    assert_eq!(import("wasi:cli/stderr@"), "granted)");
    assert_eq!(import("wasi:cli/environment@"), "nothing behind it)");
    // Nothing is left beside the author's files.
    assert_eq!(std::fs::read_dir(desk.folder.path()).unwrap().count(), 0);
}

#[test]
fn check_names_an_import_that_is_not_granted() {
    let desk = Desk::new();
    let source = r#"(component
        (import "wasi:http/outgoing-handler@0.2.0" (instance))
        (instance $nothing)
        (export "wasmhook:plugin/transform@0.1.0" (instance $nothing)))"#;
    std::fs::write(desk.path("greedy.wasm"), wat::parse_str(source).unwrap()).unwrap();
    let output = desk.run(&["plugin", "check", "greedy.wasm", "--json"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report["imports"],
        json!([{"name": "wasi:http/outgoing-handler@0.2.0", "granted": false, "empty": false}])
    );
    desk.fails(
        &["plugin", "check", "greedy.wasm"],
        6,
        "wasi:http/outgoing-handler@0.2.0, which plugins are not granted",
    );
    desk.fails(
        &["plugin", "check", "none.wasm"],
        5,
        "none.wasm does not exist",
    );
    std::os::unix::fs::symlink("loop.wasm", desk.path("loop.wasm")).unwrap();
    desk.fails(
        &["plugin", "check", "loop.wasm"],
        1,
        "loop.wasm cannot be read: Too many levels of symbolic links",
    );
}

#[test]
fn check_tells_when_an_export_is_called() {
    let desk = Desk::new();
    let sign = desk.plugin("30-sign", "sign_as.wasm", "");
    let told = desk.says(&["plugin", "check", text(&sign)]);
    let line = "exports   sign (for endpoints with profile = \"plugin\" and signer = \"30-sign\")";
    assert!(told.contains(line), "{told}");
    let judge = desk.plugin("judge", "judge.wasm", "");
    let told = desk.says(&["plugin", "check", text(&judge)]);
    assert!(
        told.contains("exports   classify (for each answer of a receiver)"),
        "{told}"
    );
}
