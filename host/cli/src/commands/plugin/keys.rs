//! Secrets that a plugin which signs is tried out with. None of them is ever printed.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use wasmhook_core::{SecretName, SigningSecret};

use crate::exit::{Coded, Exit};
use crate::made_up;

/// A secret named on the command line: `NAME=FILE`, or a file whose name is the secret's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretFile {
    name: SecretName,
    file: PathBuf,
}

impl FromStr for SecretFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once('=').and_then(|(name, file)| {
            let name = SecretName::new(name).ok()?;
            (!file.is_empty()).then(|| (name, PathBuf::from(file)))
        });
        if let Some((name, file)) = named {
            return Ok(Self { name, file });
        }
        let file = PathBuf::from(text);
        let own = file.file_name().and_then(|name| name.to_str());
        let name = own
            .and_then(|name| SecretName::new(name).ok())
            .ok_or("expected NAME=FILE, for the file's own name cannot be a secret's")?;
        Ok(Self { name, file })
    }
}

/// The names of secrets with the secrets, in the order that plugins see.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) names: Vec<SecretName>,
    pub(super) secrets: Vec<Arc<SigningSecret>>,
}

impl Keys {
    /// Those in files; `None` if no file is named.
    pub(super) fn read(files: &[SecretFile]) -> anyhow::Result<Option<Self>> {
        let secrets = files
            .iter()
            .map(|named| read(&named.file))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let names = files.iter().map(|named| named.name.clone()).collect();
        Ok((!secrets.is_empty()).then_some(Self { names, secrets }))
    }

    /// One called `main` for this run alone.
    pub(super) fn made_up() -> anyhow::Result<Self> {
        Ok(Self {
            names: vec![SecretName::new("main")?],
            secrets: vec![Arc::new(SigningSecret::parse(&made_up::secret())?)],
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Arc<SigningSecret>> {
    super::must_exist(file)?;
    let text = std::fs::read_to_string(file)
        .map(SecretString::from)
        .with_context(|| format!("cannot read the secret file {}", file.display()))?;
    let secret = SigningSecret::parse(text.expose_secret())
        .map_err(|error| Coded::new(Exit::Refused, format!("{}: {error}", file.display())))?;
    Ok(Arc::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_called_as_its_file_or_as_it_is_said() {
        let named = |text: &str| {
            text.parse::<SecretFile>()
                .map(|named| (named.name.to_string(), named.file))
        };
        let file = |name: &str, file: &str| Ok((name.to_owned(), PathBuf::from(file)));
        assert_eq!(
            named("secrets/acme/main"),
            file("main", "secrets/acme/main")
        );
        assert_eq!(named("next=a=b.txt"), file("next", "a=b.txt"));
        assert_eq!(
            named("./a=b"),
            Err("expected NAME=FILE, for the file's own name cannot be a secret's".to_owned())
        );
        assert!(named("key.txt").is_err() && named("x=").is_err());
    }
}
