//! The plugins that are written in other languages than Rust.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::stamp::Stamp;
use crate::tools::{clang, componentize, go, node, python};
use crate::{root, run, step};

/// A language, by the folder under `plugins` that holds its plugin.
struct Language {
    name: &'static str,
    /// What the component is made from besides the contract: files under `plugins`.
    sources: &'static [&'static str],
    /// About how long building takes, on two cores.
    takes: &'static str,
    /// The version of the language's tool.
    tool: fn() -> anyhow::Result<String>,
    /// Installs packages of the language, and gives the command that builds: it takes the path of
    /// the component as its last argument.
    prepare: fn() -> anyhow::Result<Command>,
}

const LANGUAGES: [Language; 5] = [
    Language {
        name: "javascript",
        sources: &[
            "javascript/package-lock.json",
            "javascript/package.json",
            "javascript/plugin.js",
        ],
        takes: "half a minute",
        tool: node::find,
        prepare: || npm_build("javascript"),
    },
    Language {
        name: "typescript",
        sources: &[
            "typescript/engine.d.ts",
            "typescript/package-lock.json",
            "typescript/package.json",
            "typescript/plugin.ts",
            "typescript/tsconfig.json",
        ],
        takes: "half a minute",
        tool: node::find,
        prepare: || npm_build("typescript"),
    },
    Language {
        name: "python",
        sources: &["python/app.py", "python/requirements.txt"],
        takes: "half a minute",
        tool: python::find,
        prepare: || {
            let folder = plugins().join("python");
            let commands = python::environment(
                &plugins().join("target/tools/python"),
                &[folder.join("requirements.txt")],
            )?;
            let mut command = Command::new(commands.join("componentize-py"));
            command
                .args([
                    "--quiet",
                    "--wit-path",
                    "../../wit/1.0.0",
                    "--world",
                    "plugin",
                ])
                .args(["componentize", "app", "--output"])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .current_dir(folder);
            Ok(command)
        },
    },
    Language {
        name: "c",
        sources: &[
            "c/build.sh",
            "c/plugin.c",
            "componentize/Cargo.lock",
            "componentize/src/main.rs",
        ],
        takes: "some seconds",
        tool: clang::find,
        prepare: || {
            componentize::build()?;
            Ok(Command::new(plugins().join("c/build.sh")))
        },
    },
    Language {
        name: "go",
        sources: &[
            "componentize/Cargo.lock",
            "componentize/src/main.rs",
            "go/build.sh",
            "go/collect/collect.go",
            "go/export_wasmhook_plugin_resolve/resolve.go",
            "go/export_wasmhook_plugin_transform/transform.go",
            "go/go.mod",
            "go/requirements.txt",
        ],
        takes: "a minute the first time",
        tool: go::find,
        prepare: || {
            let go = go::command()?;
            componentize::build()?;
            let mut command = Command::new(plugins().join("go/build.sh"));
            // Nothing is fetched: all modules are on this machine.
            command
                .env("GO", go)
                .env("GOTOOLCHAIN", "local")
                .env("GOPROXY", "off");
            Ok(command)
        },
    },
];

/// Builds every language's plugin whose tools are here or can be installed, and gives what the names
/// of the others' tests begin with; there may be no others where `must` is true.
pub(crate) fn build_all(must: bool) -> anyhow::Result<Vec<String>> {
    let mut left_out = Vec::new();
    for language in &LANGUAGES {
        match language.ready()? {
            Ready::Current => {}
            Ready::Build(mut command, stamp) => language.build(&mut command, &stamp)?,
            Ready::Missing(why) if must => {
                bail!(
                    "the plugin in plugins/{} cannot be built: {why:#}",
                    language.name
                )
            }
            Ready::Missing(why) => {
                step(&format!("left out: plugins/{}: {why:#}", language.name));
                left_out.push(format!("a_plugin_in_{}_", language.name));
            }
        }
    }
    Ok(left_out)
}

enum Ready {
    /// Nothing changed since it was built.
    Current,
    Build(Box<Command>, Stamp),
    /// A tool or package is neither here nor to be installed.
    Missing(anyhow::Error),
}

impl Language {
    fn ready(&self) -> anyhow::Result<Ready> {
        let version = match (self.tool)() {
            Ok(version) => version,
            Err(why) => return Ok(Ready::Missing(why)),
        };
        let inputs = self
            .sources
            .iter()
            .map(|file| plugins().join(file))
            .chain([root().join("wit/1.0.0/plugin.wit")]);
        let stamp = Stamp::of(
            self.component().with_extension("stamp"),
            inputs,
            &[&version],
        )?;
        if stamp.is_current(&self.component()) {
            return Ok(Ready::Current);
        }
        Ok(match (self.prepare)() {
            Ok(command) => Ready::Build(Box::new(command), stamp),
            Err(why) => Ready::Missing(why),
        })
    }

    fn build(&self, command: &mut Command, stamp: &Stamp) -> anyhow::Result<()> {
        step(&format!(
            "building plugins/{}; takes {}",
            self.name, self.takes
        ));
        let component = self.component();
        std::fs::create_dir_all(components())?;
        run(command.arg(&component))?;
        stamp.write()
    }

    fn component(&self) -> PathBuf {
        components().join(self.name).with_extension("wasm")
    }
}

fn npm_build(name: &str) -> anyhow::Result<Command> {
    let folder = plugins().join(name);
    node::packages(&folder)?;
    let mut command = Command::new("npm");
    command
        .args(["run", "--silent", "build", "--", "--out"])
        .current_dir(folder);
    Ok(command)
}

/// Where the components of these languages are.
fn components() -> PathBuf {
    plugins().join("target/components")
}

fn plugins() -> PathBuf {
    root().join("plugins")
}
