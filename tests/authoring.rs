//! What a plugin's author does on a machine of their own: the real binary, real tools, real components.
//!
//! `cargo xtask test` skips the tests, by their names, of the languages whose tools are missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{component, root};
use tempfile::TempDir;

/// A folder of an author, with a cache of compiled code that is kept from test to test.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhook"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", root().join("target/tmp/author-cache"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed, and gives what it printed.
    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["--json"]].concat();
        serde_json::from_str(&self.says(&words)).unwrap()
    }

    fn fails(&self, words: &[&str], code: i32, sentence: &str) {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(
            stderr.contains(sentence) && !stderr.contains("panicked"),
            "expected {sentence:?} in {stderr}"
        );
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn check_tells_the_contract_imports_and_costs() {
    let desk = Desk::new();
    let redact = component("redact.wasm");
    let report = desk.json(&["plugin", "check", text(&redact)]);
    assert_eq!(report["exports"], serde_json::json!(["transform"]));
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
        serde_json::json!([{"name": "wasi:http/outgoing-handler@0.2.0", "granted": false}])
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
}

/// Writes a project called `my-plugin`, and builds it with the words of its README.
fn written_and_built(desk: &Desk, lang: &str, prepare: impl FnOnce(&Path, &mut Command)) -> Value {
    let written = desk.json(&["plugin", "new", "--lang", lang, "my-plugin"]);
    assert_eq!(written["language"], lang);
    for file in written["files"].as_array().unwrap() {
        assert!(
            desk.path("my-plugin")
                .join(file.as_str().unwrap())
                .is_file(),
            "{file}"
        );
    }
    let mut command = desk.command(&["plugin", "build", "my-plugin", "--json"]);
    prepare(&desk.path("my-plugin"), &mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(built["component"], "my-plugin/my-plugin.wasm");
    assert!(built["refused"].is_null(), "{built}");
    built
}

#[test]
fn a_plugin_in_rust_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "rust", |_, build| {
        // With what was downloaded for the samples.
        build
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR");
    });
    assert_eq!(built["exports"], serde_json::json!(["transform"]));
    desk.fails(
        &["plugin", "new", "--lang", "rust", "my-plugin"],
        1,
        "my-plugin is there already",
    );
}

#[test]
fn a_plugin_in_javascript_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "js", |folder, _| {
        installed("javascript/node_modules", &folder.join("node_modules"));
    });
    assert_eq!(
        built["exports"],
        serde_json::json!(["resolve", "transform"])
    );
}

#[test]
fn a_plugin_in_typescript_is_written_and_built() {
    let desk = Desk::new();
    desk.says(&["plugin", "new", "--lang", "ts", "my-plugin"]);
    let folder = desk.path("my-plugin");
    installed("typescript/node_modules", &folder.join("node_modules"));
    // Its own build alone: what comes out is compiled as the one in JavaScript is.
    let script = "test -e node_modules || npm ci --no-audit --no-fund; npm run build";
    let built = Command::new("sh")
        .args(["-ec", script])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let made = std::fs::read(folder.join("my-plugin.wasm")).unwrap();
    assert!(made.starts_with(b"\0asm"));
}

#[test]
fn a_plugin_in_python_is_written_and_built() {
    let desk = Desk::new();
    let built = written_and_built(&desk, "python", |folder, _| {
        installed("target/tools/python", &folder.join(".venv"));
    });
    assert_eq!(
        built["exports"],
        serde_json::json!(["resolve", "transform"])
    );
}

/// The published generator is the library that `plugins/componentize` calls, so that stands for its
/// command line here.
#[test]
fn a_plugin_in_c_is_written_and_built() {
    let desk = Desk::new();
    let generator = desk.path("wit-bindgen");
    let own = root()
        .join("plugins/componentize/Cargo.toml")
        .canonicalize()
        .unwrap();
    let target = root().join("plugins/target/componentize");
    // wit-bindgen c --world WORLD --out-dir FOLDER WIT
    let script = format!(
        "#!/bin/sh\nexec cargo run --quiet --locked --manifest-path {} --target-dir {} -- $1 $6 $3 $5\n",
        own.display(),
        target.display()
    );
    std::fs::write(&generator, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&generator, mode).unwrap();
    let built = written_and_built(&desk, "c", |_, build| {
        build.env("WIT_BINDGEN", &generator);
    });
    assert_eq!(built["exports"], serde_json::json!(["transform"]));
    assert_eq!(built["adapted"], true, "it is a core module with its type");
}

/// Lets a project have the packages that `cargo xtask` installed for the samples, if it did.
fn installed(from: &str, to: &Path) {
    let from = root().join("plugins").join(from);
    if from.is_dir() {
        std::os::unix::fs::symlink(from.canonicalize().unwrap(), to).unwrap();
    }
}

#[test]
fn new_and_build_say_what_is_wrong() {
    let desk = Desk::new();
    desk.fails(
        &["plugin", "new", "--lang", "rust", "My Plugin"],
        2,
        "a-z 0-9 -",
    );
    desk.fails(
        &["plugin", "new", "--lang", "cobol", "x"],
        2,
        "rust, js, ts, python, c, go",
    );
    desk.fails(&["plugin", "build"], 5, "holds no project that is known");
    desk.fails(
        &["plugin", "build", "nowhere"],
        5,
        "holds no project that is known",
    );
    std::fs::create_dir(desk.path("broken")).unwrap();
    std::fs::write(desk.path("broken/build.sh"), "#!/bin/sh\nexit 3\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(desk.path("broken/build.sh"), mode).unwrap();
    desk.fails(&["plugin", "build", "broken"], 1, "`build.sh` failed");
}
