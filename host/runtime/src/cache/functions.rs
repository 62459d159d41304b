//! What the compiler made of the functions of a plugin's newest version, kept beside its code.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;

use super::{Cache, Draft};
use crate::artifact;
use crate::code_id::Owner;
use crate::functions::MOST;

pub(super) const EXTENSION: &str = "functions";

impl Cache {
    /// What was kept of the functions of this plugin's version before, if it is there and as it was written.
    pub(crate) fn functions(&self, owner: Owner) -> Option<Bytes> {
        let file = File::open(self.functions_path(owner)).ok()?;
        let most = (MOST + artifact::TRAILER) as u64;
        let length = file.metadata().ok()?.len();
        let mut whole = Vec::with_capacity(usize::try_from(length.min(most)).ok()?);
        file.take(most).read_to_end(&mut whole).ok()?;
        artifact::content(whole)
            .filter(|functions| !functions.is_empty())
            .map(Bytes::from)
    }

    /// Take the functions off what a compiler wrote, so that the code is left, and keep them if they are this
    /// plugin's and not another's.
    pub(crate) fn split_functions(&self, draft: &Draft, owner: Option<Owner>) -> io::Result<()> {
        let begin = artifact::last(&draft.file)?;
        let is_empty = draft.file.metadata()?.len() <= begin + artifact::TRAILER as u64;
        if let Some(owner) = owner.filter(|_| !is_empty) {
            // They save time, and nothing is wrong without them.
            if let Err(error) = self.keep_functions(draft, begin, owner) {
                tracing::debug!("functions of a plugin are not kept: {error}");
            }
        }
        draft.file.set_len(begin)
    }

    /// No longer know functions that may be to blame for what came of them.
    pub(crate) fn forget_functions(&self, owner: Owner) {
        let _ = fs::remove_file(self.functions_path(owner));
    }

    fn keep_functions(&self, draft: &Draft, begin: u64, owner: Owner) -> io::Result<()> {
        let functions = self.draft()?;
        (&draft.file).seek(SeekFrom::Start(begin))?;
        let bytes = io::copy(&mut &draft.file, &mut &functions.file)?;
        self.put_in_place(&functions, &self.functions_path(owner), bytes)
    }

    fn functions_path(&self, owner: Owner) -> PathBuf {
        let name = format!("{owner}-{}.{EXTENSION}", self.compatibility);
        self.folder.path().join(name)
    }
}
