//! `wasmhook plugin new`

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::language::Language;
use super::template;
use crate::exit::{Coded, Exit};
use crate::output;

/// What was written.
#[derive(Serialize)]
struct Written<'a> {
    folder: &'a Path,
    language: Language,
    files: Vec<&'a str>,
}

/// Writes a project into a folder of its name.
pub(super) fn new(language: Language, name: &str, json: bool) -> anyhow::Result<()> {
    let files = template::project(language, name)?;
    let folder = Path::new(name);
    fs::create_dir(folder).map_err(|error| {
        let words = if folder.exists() {
            format!("{name} is there already; choose another name, or remove it")
        } else {
            format!("cannot make the folder {name}: {error}")
        };
        Coded::new(Exit::Failure, words)
    })?;
    for file in &files {
        let path = folder.join(&file.path);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, &file.text))
            .and_then(|()| {
                if file.is_program {
                    fs::set_permissions(&path, Permissions::from_mode(0o755))
                } else {
                    Ok(())
                }
            });
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        return output::json(&Written {
            folder,
            language,
            files: files.iter().map(|file| file.path.as_str()).collect(),
        });
    }
    let words = language.words();
    output::line(format!("{name}: a plugin in {}", words.language));
    for file in &files {
        output::line(format!("  {}", file.path));
    }
    output::line(format!(
        "\nbuilding needs {}\n\n  cd {name}\n  wasmhook plugin build\n  wasmhook plugin test {name}.wasm \
         --events events.ndjson",
        words.needs
    ));
    Ok(())
}

/// Reads a project's name, which becomes the name of a folder, a package and a component.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let good = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.ends_with('-');
    // Names that a package of Rust or the files of a project cannot have beside the others.
    let taken = ["test", "core", "std", "alloc", "cargo", "wit", "build"].contains(&text);
    if good && !taken {
        Ok(text.to_owned())
    } else if taken {
        Err("it is the name of something else in a project; choose another".to_owned())
    } else {
        Err("expected 1 to 64 characters of a-z 0-9 -, beginning with a letter".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn a_name_is_good_for_a_folder_a_package_and_a_file() {
        for good in ["redact", "a", "add-vat-2"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "Redact",
            "2nd",
            "a_b",
            "a/b",
            "..",
            "-a",
            "a-",
            "test",
            &"a".repeat(65),
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
