//! The files of a new project: the repository's own sample plugins, which its tests build and run, with
//! the places changed that are different outside the repository.

use anyhow::Context as _;

use super::language::Language;

/// A file of the repository, as it was when this program was built.
macro_rules! repository {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path))
    };
}

/// One file of a project.
#[derive(Debug)]
pub(super) struct ProjectFile {
    /// Its path inside the project.
    pub(super) path: String,
    pub(super) text: String,
    /// Whether it is a script to be run.
    pub(super) is_program: bool,
}

fn file(path: &str, text: impl Into<String>) -> ProjectFile {
    ProjectFile {
        path: path.to_owned(),
        text: text.into(),
        is_program: false,
    }
}

fn program(path: &str, text: impl Into<String>) -> ProjectFile {
    ProjectFile {
        is_program: true,
        ..file(path, text)
    }
}

/// All files of a project called `name`.
pub(super) fn project(language: Language, name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    let mut files = match language {
        Language::Rust => rust(name)?,
        Language::JavaScript => javascript(name)?,
        Language::TypeScript => typescript(name)?,
        Language::Python => python(name),
        Language::C => c(name)?,
        Language::Go => go(name)?,
    };
    let words = language.words();
    let resolver = if language.resolves() {
        "# field = \"customer.region\"               # of the resolver: where the endpoint's id is found\n\
         # \"map.eu\" = \"europe\"                     # the endpoint for one value of it\n\
         # default = \"main\"\n"
    } else {
        ""
    };
    files.extend([
        file("wit/plugin.wit", repository!("wit/1.0.0/plugin.wit")),
        file("events.ndjson", include_str!("templates/events.ndjson")),
        file(
            &format!("{name}.toml"),
            include_str!("templates/manifest.toml")
                .replace("{{name}}", name)
                .replace("{{resolver}}\n", resolver),
        ),
        file(
            "README.md",
            include_str!("templates/README.md")
                .replace("{{name}}", name)
                .replace("{{language}}", words.language)
                .replace("{{what}}", words.what)
                .replace("{{needs}}", words.needs)
                .replace("{{build}}", words.build)
                .replace("{{more}}", words.more),
        ),
    ]);
    Ok(files)
}

fn rust(name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    let source = changed(
        repository!("plugins/rust/redact/src/lib.rs"),
        &[("path: \"../../../wit/1.0.0\"", "path: \"wit\"")],
    )?;
    Ok(vec![
        file("Cargo.toml", cargo_manifest(name)?),
        // The versions that the samples are tested with; cargo leaves out what is not used.
        file("Cargo.lock", repository!("plugins/Cargo.lock")),
        file("src/lib.rs", source),
        file(".gitignore", "/target\n*.wasm\n"),
    ])
}

/// The sample's manifest, with what it inherits from the workspace of the samples written out.
fn cargo_manifest(name: &str) -> anyhow::Result<String> {
    let workspace: toml::Table = repository!("plugins/Cargo.toml").parse()?;
    let sample: toml::Table = repository!("plugins/rust/redact/Cargo.toml").parse()?;
    let table = |from: &toml::Table, path: &[&str]| {
        let mut table = from.clone();
        for part in path {
            table = table
                .get(*part)
                .and_then(toml::Value::as_table)
                .with_context(|| format!("the sample has no table {}", path.join(".")))?
                .clone();
        }
        anyhow::Ok(table)
    };
    let lines = |table: toml::Table| {
        let lines: Vec<_> = table
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        lines.join("\n")
    };
    let shared = table(&workspace, &["workspace", "dependencies"])?;
    let mut dependencies = toml::Table::new();
    for name in table(&sample, &["dependencies"])?.keys() {
        let dependency = shared
            .get(name)
            .with_context(|| format!("the workspace of the samples has no {name}"))?;
        dependencies.insert(name.clone(), dependency.clone());
    }
    let package = table(&workspace, &["workspace", "package"])?;
    let edition = package
        .get("edition")
        .context("the workspace of the samples has no edition")?;
    Ok(format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = {edition}\npublish = false\n\n\
         [lib]\n{}\n\n[dependencies]\n{}\n\n\
         # Small and quick to start: a component is compiled by the host and mapped for each tenant.\n\
         [profile.release]\n{}\n\n\
         # Of no workspace around it.\n[workspace]\n",
        lines(table(&sample, &["lib"])?),
        lines(dependencies),
        lines(table(&workspace, &["profile", "release"])?),
    ))
}

fn javascript(name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    const SAMPLE: &str = "\"wasmhook-plugin-javascript\"";
    let named = format!("\"{name}\"");
    Ok(vec![
        file(
            "package.json",
            changed(
                repository!("plugins/javascript/package.json"),
                &[
                    (SAMPLE, &named),
                    ("--wit ../../wit/1.0.0 ", "--wit wit "),
                    ("--out plugin.wasm", &format!("--out {name}.wasm")),
                ],
            )?,
        ),
        file(
            "package-lock.json",
            changed(
                repository!("plugins/javascript/package-lock.json"),
                &[(SAMPLE, &named)],
            )?,
        ),
        file(".npmrc", repository!("plugins/javascript/.npmrc")),
        file("plugin.js", repository!("plugins/javascript/plugin.js")),
        file(".gitignore", "/node_modules\n*.wasm\n"),
    ])
}

fn typescript(name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    const SAMPLE: &str = "\"wasmhook-plugin-typescript\"";
    let named = format!("\"{name}\"");
    Ok(vec![
        file(
            "package.json",
            changed(
                repository!("plugins/typescript/package.json"),
                &[
                    (SAMPLE, &named),
                    ("guest-types ../../wit/1.0.0 ", "guest-types wit "),
                    ("--wit ../../wit/1.0.0 ", "--wit wit "),
                    ("--out plugin.wasm", &format!("--out {name}.wasm")),
                ],
            )?,
        ),
        file(
            "package-lock.json",
            changed(
                repository!("plugins/typescript/package-lock.json"),
                &[(SAMPLE, &named)],
            )?,
        ),
        file(".npmrc", repository!("plugins/typescript/.npmrc")),
        file(
            "tsconfig.json",
            repository!("plugins/typescript/tsconfig.json"),
        ),
        file("engine.d.ts", repository!("plugins/typescript/engine.d.ts")),
        file("plugin.ts", repository!("plugins/typescript/plugin.ts")),
        file(".gitignore", "/build\n/node_modules\n*.wasm\n"),
    ])
}

fn python(name: &str) -> Vec<ProjectFile> {
    vec![
        file("app.py", repository!("plugins/python/app.py")),
        file(
            "requirements.txt",
            repository!("plugins/python/requirements.txt"),
        ),
        program(
            "build.sh",
            include_str!("templates/python-build.sh").replace("{{name}}", name),
        ),
        file(".gitignore", "/.venv\n__pycache__\n*.wasm\n"),
    ]
}

/// What the samples' scripts call, which is of the repository and not to be had elsewhere.
const OWN_TOOL: &str = "componentize() {\n    \
                        cargo run --quiet --locked --manifest-path \"$here/../componentize/Cargo.toml\" \\\n        \
                        --target-dir \"$here/../target/componentize\" -- \"$@\"\n}\n\n";

fn c(name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    let build = changed(
        repository!("plugins/c/build.sh"),
        &[
            (
                "# Makes a component of plugin.c: `build.sh [OUT]`. ",
                "# Makes a plugin of plugin.c: `build.sh [OUT]`, a core module with the contract's type in it, which\n\
                 # the host makes a component of. WIT_BINDGEN names the bindings' generator if it is not wit-bindgen,\n# ",
            ),
            ("plugin.wasm", &format!("{name}.wasm")),
            (OWN_TOOL, ""),
            (
                "componentize c \"$here/../../wit/1.0.0\" $world \"$here/build\"",
                "\"${WIT_BINDGEN:-wit-bindgen}\" c --world $world --out-dir \"$here/build\" \"$here/wit\"",
            ),
            // The type would be stripped, too.
            ("--strip-all", "--strip-debug"),
            ("-o \"$here/build/core.wasm\"\n", "-o \"$out\"\n"),
            (
                "componentize component \"$here/../../wit/1.0.0\" $world \"$here/build/core.wasm\" \"$out\"\n",
                "",
            ),
        ],
    )?;
    Ok(vec![
        program("build.sh", build),
        file("plugin.c", repository!("plugins/c/plugin.c")),
        file(".gitignore", "/build\n*.wasm\n"),
    ])
}

fn go(name: &str) -> anyhow::Result<Vec<ProjectFile>> {
    let build = changed(
        repository!("plugins/go/build.sh"),
        &[
            (
                "# Makes a component of the two packages beside this file: `build.sh [OUT]`. GO names the go command.",
                "# Makes a plugin of the two packages beside this file: `build.sh [OUT]`, a core module with the\n\
                 # contract's type in it, which the host makes a component of. GO, WIT_BINDGEN and WASM_TOOLS name\n\
                 # the commands if they are not go, wit-bindgen and wasm-tools.",
            ),
            ("plugin.wasm", &format!("{name}.wasm")),
            (OWN_TOOL, ""),
            (
                "componentize go \"$here/../../wit/1.0.0\" plugin \"$here\"\n",
                "mkdir -p \"$here/build\"\n\
                 cp \"$here/go.mod\" \"$here/build/go.mod\" # the generator writes one of its own\n\
                 \"${WIT_BINDGEN:-wit-bindgen}\" go --world plugin --out-dir \"$here\" \"$here/wit\"\n\
                 mv \"$here/build/go.mod\" \"$here/go.mod\"\n",
            ),
            ("build -C \"$here\" ", "build -C \"$here\" -mod=mod "),
            ("-o core.wasm\n", "-o build/core.wasm\n"),
            (
                "componentize component \"$here/../../wit/1.0.0\" plugin \"$here/core.wasm\" \"$out\"",
                "\"${WASM_TOOLS:-wasm-tools}\" component embed --world plugin \"$here/wit\" \"$here/build/core.wasm\" \
                 --output \"$out\"",
            ),
        ],
    )?;
    let module = changed(
        repository!("plugins/go/go.mod"),
        &[(
            "\n// The bindings' generator brings it.\nreplace go.bytecodealliance.org/pkg => ./pkg\n",
            "",
        )],
    )?;
    Ok(vec![
        program("build.sh", build),
        file("go.mod", module),
        file(
            "collect/collect.go",
            repository!("plugins/go/collect/collect.go"),
        ),
        file(
            "export_wasmhook_plugin_resolve/resolve.go",
            repository!("plugins/go/export_wasmhook_plugin_resolve/resolve.go"),
        ),
        file(
            "export_wasmhook_plugin_transform/transform.go",
            repository!("plugins/go/export_wasmhook_plugin_transform/transform.go"),
        ),
        file(
            ".gitignore",
            "/build\n/wasmhook_plugin_*\n/wit_exports.go\n*.wasm\n",
        ),
    ])
}

/// A text with each of the changes made; it is a mistake of ours when there is nothing to change.
fn changed(text: &str, changes: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    for (from, to) in changes {
        anyhow::ensure!(
            text.contains(from),
            "the sample does not say `{}` any more",
            from.trim()
        );
        text = text.replace(from, to);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_project_is_whole_and_points_nowhere_outside_itself() {
        for language in Language::value_variants() {
            let files = project(*language, "example").unwrap();
            for file in &files {
                let text = &file.text;
                // Places to be filled in are in the files at the top.
                let has_places = !file.path.contains('/');
                for left in ["../", "plugin.wasm", "componentize()", "workspace = true"] {
                    assert!(!text.contains(left), "{language:?} {}: {left}", file.path);
                }
                assert!(
                    !has_places || !text.contains("{{"),
                    "{language:?} {}: a place is not filled in",
                    file.path
                );
                assert_eq!(file.is_program, text.starts_with("#!"), "{}", file.path);
            }
            for path in [
                "README.md",
                "events.ndjson",
                "example.toml",
                "wit/plugin.wit",
                ".gitignore",
            ] {
                assert!(
                    files.iter().any(|file| file.path == path),
                    "{language:?}: {path}"
                );
            }
        }
    }

    #[test]
    fn the_readme_is_short() {
        for language in Language::value_variants() {
            let files = project(*language, "my-plugin").unwrap();
            let readme = files.iter().find(|file| file.path == "README.md").unwrap();
            let lines = readme.text.lines().filter(|line| !line.is_empty()).count();
            assert!(lines <= 15, "{language:?}: {lines} lines");
        }
    }

    #[test]
    fn a_sample_that_changed_is_noticed() {
        let error = changed("a b", &[("a", "c"), ("a", "d")]).unwrap_err();
        assert_eq!(error.to_string(), "the sample does not say `a` any more");
    }
}
