//! What need not be done again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Remembers what something was made from, in a file beside it.
pub(crate) struct Stamp {
    file: PathBuf,
    made_from: String,
}

impl Stamp {
    /// Of something made from the contents of `inputs` (files) by tools of these `versions`.
    pub(crate) fn of(
        file: PathBuf,
        inputs: impl IntoIterator<Item = PathBuf>,
        versions: &[&str],
    ) -> anyhow::Result<Self> {
        let mut hasher = DefaultHasher::new();
        versions.hash(&mut hasher);
        for input in inputs {
            let bytes = std::fs::read(&input)
                .with_context(|| format!("cannot read {}", input.display()))?;
            input.hash(&mut hasher);
            bytes.hash(&mut hasher);
        }
        let made_from = format!("{:016x}\n", hasher.finish());
        Ok(Self { file, made_from })
    }

    /// Whether `made` is there and was made from the same.
    pub(crate) fn is_current(&self, made: &Path) -> bool {
        made.exists()
            && std::fs::read_to_string(&self.file).is_ok_and(|found| found == self.made_from)
    }

    /// To be called when all is done.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        self.file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&self.file, &self.made_from))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}
