//! `plugin new` and `plugin build`: a project in each language, written, built and tried out.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::desk::{Desk, program};
use crate::support::root;

/// Has the transform of a project print something first.
fn have_printed(file: &Path, begins: &str, prints: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(begins), "{text}");
    std::fs::write(file, text.replace(begins, &format!("{begins}{prints}"))).unwrap();
}

/// What the first transform logged and printed.
fn lines(tried: &Value) -> &Value {
    let calls = tried["events"][0]["calls"].as_array().unwrap();
    &calls.last().unwrap()["log"]
}

/// Writes a project called `my-plugin`, builds it and tries it out with the words of its README.
fn written_and_built(
    desk: &Desk,
    lang: &str,
    prepare: impl FnOnce(&Path, &mut Command),
) -> (Value, Value) {
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
    let tried = desk
        .command(&["plugin", "test", "my-plugin.wasm", "--json"])
        .args(["--events", "events.ndjson"])
        .current_dir(desk.path("my-plugin"))
        .output()
        .unwrap();
    assert_eq!(tried.status.code(), Some(0), "{tried:?}");
    let tried: Value = serde_json::from_slice(&tried.stdout).unwrap();
    for event in tried["events"].as_array().unwrap() {
        let transform = event["calls"].as_array().unwrap().last().unwrap();
        let body = transform["body"].as_str().unwrap();
        assert!(
            body.contains(r#""email":"[redacted]""#) && body.contains("schema_version"),
            "{body}"
        );
    }
    (built, tried)
}

/// Lets a project have the packages that `cargo xtask` installed for the samples, if it did.
fn installed(from: &str, to: &Path) {
    let from = root().join("plugins").join(from);
    if from.is_dir() {
        std::os::unix::fs::symlink(from.canonicalize().unwrap(), to).unwrap();
    }
}

#[test]
fn a_plugin_in_rust_is_written_and_built() {
    let desk = Desk::new();
    let (built, _) = written_and_built(&desk, "rust", |_, build| {
        // With what was downloaded for the samples.
        build
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR");
    });
    assert_eq!(built["exports"], json!(["transform"]));
    desk.fails(
        &["plugin", "new", "--lang", "rust", "my-plugin"],
        1,
        "my-plugin is there already",
    );
}

#[test]
fn a_plugin_in_javascript_is_written_and_built() {
    let desk = Desk::new();
    let (built, tried) = written_and_built(&desk, "js", |folder, _| {
        let prints = r#" console.log("of", event.id); console.error("odd");"#;
        have_printed(&folder.join("plugin.js"), "transform(event) {", prints);
        installed("javascript/node_modules", &folder.join("node_modules"));
    });
    assert_eq!(built["exports"], json!(["resolve", "transform"]));
    assert_eq!(*lines(&tried), json!(["info: of evt_1", "warn: odd"]));
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
    let (built, tried) = written_and_built(&desk, "python", |folder, _| {
        let begins = "def transform(self, event: Event, endpoint: Endpoint) -> Verdict:\n";
        let prints = "        import sys\n        print(\"of\", event.id)\n        print(\"odd\", file=sys.stderr)\n";
        have_printed(&folder.join("app.py"), begins, prints);
        installed("target/tools/python", &folder.join(".venv"));
    });
    assert_eq!(built["exports"], json!(["resolve", "transform"]));
    assert_eq!(*lines(&tried), json!(["info: of evt_1", "warn: odd"]));
}

#[test]
fn a_plugin_in_c_is_written_and_built() {
    let desk = Desk::new();
    let tools = desk.published_tools();
    let (report, _) = written_and_built(&desk, "c", |_, command| {
        command.env("WIT_BINDGEN", tools.join("wit-bindgen"));
    });
    assert_eq!(report["exports"], json!(["transform"]));
    assert_eq!(report["adapted"], true, "it is a core module with its type");
}

#[test]
fn a_plugin_in_go_is_written_and_built() {
    let desk = Desk::new();
    let tools = desk.published_tools();
    let installed = root().join("plugins/target/tools/go/bin/go");
    let go = if installed.is_file() {
        installed
    } else {
        "go".into()
    };
    let (report, _) = written_and_built(&desk, "go", |folder, command| {
        // The module that the bindings import comes with their generator here, and from Go's own proxy
        // elsewhere. Nothing is fetched.
        let module = folder.join("go.mod");
        let text = std::fs::read_to_string(&module).unwrap();
        let replaced = format!("{text}\nreplace go.bytecodealliance.org/pkg => ./pkg\n");
        std::fs::write(&module, replaced).unwrap();
        command
            .env("GO", go)
            .env("GOTOOLCHAIN", "local")
            .env("GOPROXY", "off")
            .env("WIT_BINDGEN", tools.join("wit-bindgen"))
            .env("WASM_TOOLS", tools.join("wasm-tools"));
    });
    assert_eq!(report["exports"], json!(["resolve", "transform"]));
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
    desk.fails(&["plugin", "build", "nowhere"], 5, "nowhere does not exist");
    std::fs::write(desk.path("file"), "").unwrap();
    desk.fails(&["plugin", "build", "file"], 5, "file is not a folder");
    std::fs::create_dir(desk.path("broken")).unwrap();
    program(&desk.path("broken/build.sh"), "#!/bin/sh\nexit 3\n");
    desk.fails(&["plugin", "build", "broken"], 1, "`build.sh` failed");
}
