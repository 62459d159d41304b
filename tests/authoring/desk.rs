//! The place of a plugin's author.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{component, root};

/// A folder of an author, with a cache of compiled code that is kept from test to test.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhook"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env(
                "XDG_CACHE_HOME",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/author-cache"),
            )
            .stdin(Stdio::null());
        command
    }

    /// A component with a manifest beside it.
    pub(crate) fn plugin(&self, name: &str, from: &str, manifest: &str) -> PathBuf {
        let file = self.path(&format!("{name}.wasm"));
        std::fs::copy(component(from), &file).unwrap();
        std::fs::write(file.with_extension("toml"), manifest).unwrap();
        file
    }

    /// What stands for the command lines of wit-bindgen and wasm-tools, which take minutes to compile:
    /// `plugins/componentize`, which calls the same libraries.
    pub(crate) fn published_tools(&self) -> PathBuf {
        let own = root().join("plugins/componentize/Cargo.toml");
        let call = format!(
            "#!/bin/sh\nexec cargo run --quiet --locked --manifest-path {} --target-dir {} --",
            own.canonicalize().unwrap().display(),
            root().join("plugins/target/componentize").display(),
        );
        let folder = self.path("tools");
        std::fs::create_dir(&folder).unwrap();
        // wit-bindgen LANGUAGE --world WORLD --out-dir FOLDER WIT
        program(
            &folder.join("wit-bindgen"),
            &format!("{call} $1 $6 $3 $5\n"),
        );
        // wasm-tools component embed --world WORLD WIT CORE --output OUT
        program(
            &folder.join("wasm-tools"),
            &format!("{call} component $5 $4 $6 $8\n"),
        );
        folder
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["--json"]].concat();
        serde_json::from_str(&self.says(&words)).unwrap()
    }

    pub(crate) fn fails(&self, words: &[&str], code: i32, sentence: &str) {
        let output = self.run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(
            stderr.contains(sentence) && !stderr.contains("panicked"),
            "expected {sentence:?} in {stderr}"
        );
    }
}

/// Two events, as a project has them.
pub(crate) const EVENTS: &str =
    include_str!("../../host/cli/src/commands/plugin/templates/events.ndjson");

pub(crate) fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
