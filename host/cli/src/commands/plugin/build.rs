//! `wasmhook plugin build`: runs the build that a project has, and checks what it made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::check::Checked;
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::output;

/// How a project is built, by what lies in its folder. The first that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Project {
    /// `build.sh`
    Script,
    /// `Cargo.toml`
    Cargo,
    /// `package.json` with a script `build`
    Npm,
    /// `app.py` with `requirements.txt` or `pyproject.toml`
    Python,
}

/// What was built, with what is said about it.
#[derive(Serialize)]
struct Built<'a> {
    component: &'a Path,
    #[serde(flatten)]
    checked: &'a Checked,
}

/// Builds the project in a folder.
pub(super) async fn build(config: &Config, folder: &Path, json: bool) -> anyhow::Result<()> {
    let project = Project::recognise(folder)?;
    let component = project.build(folder)?;
    let checked = Checked::examine(config, &component).await?;
    if json {
        output::json(&Built {
            component: &component,
            checked: &checked,
        })?;
    } else {
        output::line(format!("built     {}", component.display()));
        checked.print();
    }
    checked.conclude(&component)
}

impl Project {
    fn recognise(folder: &Path) -> anyhow::Result<Self> {
        super::must_be(folder, "a folder", fs::Metadata::is_dir)?;
        let has = |name: &str| folder.join(name).is_file();
        if has("build.sh") {
            Ok(Self::Script)
        } else if has("Cargo.toml") {
            Ok(Self::Cargo)
        } else if has("package.json") {
            Ok(Self::Npm)
        } else if has("app.py") && (has("requirements.txt") || has("pyproject.toml")) {
            Ok(Self::Python)
        } else {
            Err(Coded::new(
                Exit::NotFound,
                format!(
                    "{} holds no project that is known: expected build.sh, Cargo.toml, package.json, or app.py \
                     with requirements.txt or pyproject.toml",
                    folder.display()
                ),
            ))
        }
    }

    /// Builds, and gives the path of the component.
    fn build(self, folder: &Path) -> anyhow::Result<PathBuf> {
        let before = components(folder)?;
        match self {
            Self::Cargo => return cargo(folder),
            Self::Script => {
                // By its full path, for it is run from inside the folder.
                let script = fs::canonicalize(folder.join("build.sh"))
                    .with_context(|| format!("cannot find {}/build.sh", folder.display()))?;
                run(Command::new(script).current_dir(folder))?;
            }
            Self::Npm => npm(folder)?,
            Self::Python => python(folder)?,
        }
        made(folder, &before)
    }
}

fn cargo(folder: &Path) -> anyhow::Result<PathBuf> {
    /// What cargo says of something that it built.
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(folder)
        .stdout(Stdio::piped());
    let named = named(&command);
    say(&named);
    let mut child = command.spawn().map_err(|error| not_run(&named, &error))?;
    let mut built = Vec::new();
    // Taken, as it was asked for above.
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let line = line.context("cannot read what cargo says")?;
        // Of other messages nothing is wanted.
        let Ok(message) = serde_json::from_str::<Message>(&line) else {
            continue;
        };
        built.extend(message.filenames.into_iter().filter(|file| is_wasm(file)));
    }
    let ended = child.wait().map_err(|error| not_run(&named, &error))?;
    if !ended.success() {
        return Err(Coded::new(
            Exit::Failure,
            format!(
                "`{named}` failed; if it does not find the target, `rustup target add wasm32-wasip2` installs it"
            ),
        ));
    }
    let [file] = &built[..] else {
        return Err(Coded::new(
            Exit::Failure,
            format!(
                "cargo built {} components, expected one: a package with `crate-type = [\"cdylib\"]`, in a folder \
                 of its own",
                built.len()
            ),
        ));
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Cargo names files with underscores; the package, like the manifest beside it, with hyphens.
    let component = folder.join(package(folder).map_or_else(
        || name.clone().into_owned(),
        |package| format!("{package}.wasm"),
    ));
    fs::copy(file, &component)
        .with_context(|| format!("cannot copy {} to {}", file.display(), component.display()))?;
    Ok(component)
}

/// The name that `Cargo.toml` gives the package.
fn package(folder: &Path) -> Option<String> {
    let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml"))
        .ok()?
        .parse()
        .ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    Some(name.to_owned())
}

fn npm(folder: &Path) -> anyhow::Result<()> {
    if !folder.join("node_modules").exists() {
        let install = if folder.join("package-lock.json").is_file() {
            "ci"
        } else {
            "install"
        };
        run(Command::new("npm")
            .args([install, "--no-audit", "--no-fund"])
            .current_dir(folder))?;
    }
    run(Command::new("npm")
        .args(["run", "--silent", "build"])
        .current_dir(folder))
}

fn python(folder: &Path) -> anyhow::Result<()> {
    let folder =
        fs::canonicalize(folder).with_context(|| format!("cannot find {}", folder.display()))?;
    if !folder.join("wit").is_dir() {
        return Err(Coded::new(
            Exit::NotFound,
            format!(
                "{}/wit is missing: the folder with the contract, plugin.wit",
                folder.display()
            ),
        ));
    }
    let own = folder.join(".venv/bin/componentize-py");
    if !own.is_file() && folder.join("requirements.txt").is_file() {
        run(Command::new("python3")
            .args(["-m", "venv", ".venv"])
            .current_dir(&folder))?;
        run(Command::new(folder.join(".venv/bin/pip"))
            .args(["install", "--quiet", "--requirement", "requirements.txt"])
            .current_dir(&folder))?;
    }
    let name = folder.file_name().unwrap_or_else(|| OsStr::new("plugin"));
    let program = if own.is_file() {
        own.into_os_string()
    } else {
        "componentize-py".into()
    };
    run(Command::new(program)
        .args(["--quiet", "--wit-path", "wit", "--world", "plugin"])
        .args(["componentize", "app", "--output"])
        .arg(Path::new(name).with_extension("wasm"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&folder))
}

fn is_wasm(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "wasm")
}

/// The components in a folder, with when they were written.
fn components(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, SystemTime>> {
    let cannot = || format!("cannot read the folder {}", folder.display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let path = entry.path();
        if is_wasm(&path) && path.is_file() {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            found.insert(path, written.with_context(cannot)?);
        }
    }
    Ok(found)
}

/// The one component in the folder, or the one of several that the build wrote.
fn made(folder: &Path, before: &BTreeMap<PathBuf, SystemTime>) -> anyhow::Result<PathBuf> {
    let after = components(folder)?;
    let written: Vec<_> = after
        .iter()
        .filter(|(path, time)| after.len() == 1 || before.get(*path) != Some(time))
        .map(|(path, _)| path.clone())
        .collect();
    match &written[..] {
        [one] => Ok(one.clone()),
        [] => Err(Coded::new(
            Exit::Failure,
            format!("the build wrote no .wasm file into {}", folder.display()),
        )),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|path| path.file_name().unwrap_or_default().to_string_lossy())
                .collect();
            Err(Coded::new(
                Exit::Failure,
                format!(
                    "the build wrote several .wasm files into {}, expected one: {}",
                    folder.display(),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// What a shell ends with when it does not find a command (POSIX).
const NOT_FOUND: i32 = 127;

/// Runs a step of a build. What it prints goes to standard error, beside what the command itself says.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let named = named(command);
    say(&named);
    let ended = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| not_run(&named, &error))?;
    if ended.success() {
        return Ok(());
    }
    let why = if ended.code() == Some(NOT_FOUND) {
        ": a command that it runs is missing; the project's README says what building needs"
    } else {
        ""
    };
    Err(Coded::new(Exit::Failure, format!("`{named}` failed{why}")))
}

fn named(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[expect(
    clippy::print_stderr,
    reason = "steps are told beside what their programs say"
)]
fn say(step: &str) {
    eprintln!("==> {step}");
}

fn not_run(named: &str, error: &std::io::Error) -> anyhow::Error {
    Coded::new(
        Exit::Failure,
        format!("cannot run `{named}`: {error}; the project's README says what building needs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_known_by_its_files_and_its_own_script_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(Project::recognise(path).is_err());
        for (files, project) in [
            (&["app.py", "requirements.txt"][..], Project::Python),
            (&["package.json"], Project::Npm),
            (&["Cargo.toml"], Project::Cargo),
            (&["build.sh"], Project::Script),
        ] {
            for file in files {
                fs::write(path.join(file), "").unwrap();
            }
            assert_eq!(Project::recognise(path).unwrap(), project);
        }
    }

    #[test]
    fn a_script_that_does_not_find_a_command_sends_the_author_to_the_readme() {
        let script = |words: &str| {
            let ended = run(Command::new("sh").args(["-c", words]));
            ended.unwrap_err().to_string()
        };
        let missing = script("no-such-command-here");
        assert!(missing.contains("README says"), "{missing}");
        assert_eq!(script("exit 1"), "`sh -c exit 1` failed");
    }

    #[test]
    fn what_a_build_made_is_the_only_component_or_the_one_that_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let none = components(path).unwrap();
        assert!(
            made(path, &none)
                .unwrap_err()
                .to_string()
                .contains("no .wasm file")
        );
        fs::write(path.join("a.wasm"), "a").unwrap();
        let one = components(path).unwrap();
        assert_eq!(made(path, &one).unwrap(), path.join("a.wasm"));
        fs::write(path.join("b.wasm"), "b").unwrap();
        assert_eq!(made(path, &one).unwrap(), path.join("b.wasm"));
        let several = made(path, &none).unwrap_err().to_string();
        assert!(
            several.contains("several") && several.contains("a.wasm, b.wasm"),
            "{several}"
        );
    }
}
