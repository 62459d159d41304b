//! What C and Go plugins are built with.
//!
//! `componentize c WIT WORLD FOLDER` and `componentize go WIT WORLD FOLDER` write the bindings of a
//! world into a folder; `componentize component WIT WORLD CORE OUT` turns the core module that the
//! compiler made, which speaks WASI preview 1, into a component.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

const USAGE: &str = "expected one of
  componentize c WIT WORLD FOLDER
  componentize go WIT WORLD FOLDER
  componentize component WIT WORLD CORE OUT";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["c", wit, world, folder] => c_bindings(wit, world, Path::new(folder)),
        ["go", wit, world, folder] => go_bindings(wit, world, Path::new(folder)),
        ["component", wit, world, core, out] => component(wit, world, core, out),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn c_bindings(wit: &str, world: &str, folder: &Path) -> anyhow::Result<()> {
    let generator = wit_bindgen_c::Opts::default().build();
    generate(generator, wit, world, folder)
}

/// The bindings as the module `wit_component`, and beside them, in `pkg`, the module that they
/// import.
fn go_bindings(wit: &str, world: &str, folder: &Path) -> anyhow::Result<()> {
    generate(wit_bindgen_go::Opts::default().build(), wit, world, folder)?;
    copy(&go_runtime()?, &folder.join("pkg"))
}

fn generate(
    mut generator: Box<dyn WorldGenerator>,
    wit: &str,
    world: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let (mut resolve, world) = resolve(wit, world)?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        // What names the author's module and its dependencies is the author's.
        if name != "go.mod" || !path.exists() {
            write(&path, bytes)?;
        }
    }
    Ok(())
}

fn component(wit: &str, world: &str, core: &str, out: &str) -> anyhow::Result<()> {
    let mut module = std::fs::read(core).with_context(|| format!("cannot read {core}"))?;
    let (resolve, world) = resolve(wit, world)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.adapter(ADAPTER_NAME, ADAPTER))
        .and_then(ComponentEncoder::encode)
        .with_context(|| format!("{core} does not fit the world"))?;
    write(Path::new(out), &component)
}

fn resolve(wit: &str, world: &str) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    Ok((resolve, world))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Where cargo put the Go module that the bindings import: its generator's package brings it.
fn go_runtime() -> anyhow::Result<PathBuf> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--manifest-path", manifest])
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "wit-bindgen-go")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(|package| package.join("src/pkg"))
        .filter(|module| module.join("go.mod").is_file())
        .context("the package wit-bindgen-go does not bring its Go module")
}

/// Copies Go's own files of a folder, at any depth.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else if ["go", "s", "mod"]
            .iter()
            .any(|ending| path.extension().is_some_and(|found| found == *ending))
        {
            write(&target, &std::fs::read(&path)?)?;
        }
    }
    Ok(())
}
