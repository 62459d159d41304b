//! Components that the compiler refused, remembered beside those that it compiled, so that one that takes
//! all the time it may costs that once and not at every start.
//!
//! Only what the same bytes meet again is remembered: that they are invalid, that they take too much
//! processor time or memory, that their code is too large. What may have been the machine's doing is not: a
//! deadline on the wall, a compiler that was killed, crashed or could not be started; and whoever keeps a
//! refusal for memory has seen that the machine had it (`machine.rs`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Cache;
use crate::artifact;
use crate::error::LoadError;
use crate::loading::LoadLimits;
use crate::types::Digest;

const EXTENSION: &str = "refused";
/// The most bytes of an entry: a sentence, and what is around it.
const ENTRY_BYTES: u64 = 16 << 10;
/// Entries kept. Those used longest ago go first, and are refused once more when they are met again.
const MOST: usize = 1_024;
/// Who refused: an unoptimised compiler takes many times as long, and another version may take less.
const COMPILER: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), " unoptimised")
} else {
    env!("CARGO_PKG_VERSION")
};

/// An entry: JSON, with a checksum behind it as compiled code has.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    compiler: String,
    refusal: Refusal,
}

/// A refusal that does not pass.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Refusal {
    Invalid(String),
    /// It took more than these seconds of processor time.
    CpuSeconds(u64),
    /// Its code has more than these bytes.
    CodeBytes(u64),
    /// It took more than these bytes of memory, with so many threads, of which each has its own.
    Memory {
        bytes: u64,
        threads: usize,
    },
}

/// Threads that a compiler has on this machine.
fn threads() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

impl Refusal {
    fn of(error: &LoadError) -> Option<Self> {
        match error {
            LoadError::Invalid(reason) => Some(Self::Invalid(reason.clone())),
            LoadError::CompileCpuTime { limit_seconds } => Some(Self::CpuSeconds(*limit_seconds)),
            LoadError::CodeSize { limit_bytes } => Some(Self::CodeBytes(*limit_bytes)),
            LoadError::CompileMemory { limit_bytes } => Some(Self::Memory {
                bytes: *limit_bytes,
                threads: threads(),
            }),
            _ => None,
        }
    }

    /// What it means under these limits; nothing, if they leave more room than it was refused under.
    fn under(self, limits: &LoadLimits) -> Option<LoadError> {
        match self {
            Self::Invalid(reason) => Some(LoadError::Invalid(reason)),
            Self::CpuSeconds(exceeded) => {
                let limit_seconds = limits.compile_cpu_seconds;
                (limit_seconds <= exceeded).then_some(LoadError::CompileCpuTime { limit_seconds })
            }
            Self::CodeBytes(exceeded) => {
                let limit_bytes = limits.code_bytes;
                (limit_bytes <= exceeded).then_some(LoadError::CodeSize { limit_bytes })
            }
            Self::Memory {
                bytes,
                threads: with,
            } => {
                let limit_bytes = limits.compile_memory_bytes;
                (limit_bytes <= bytes && threads() >= with)
                    .then_some(LoadError::CompileMemory { limit_bytes })
            }
        }
    }
}

impl Cache {
    /// Why a component was refused before and would be again under these limits. An entry that is not as it
    /// was written is removed.
    pub(crate) fn refusal(&self, digest: Digest, limits: &LoadLimits) -> Option<LoadError> {
        let path = self.refusal_path(digest);
        match read(&path) {
            Ok(entry) => {
                let entry = entry.filter(|entry| entry.compiler == COMPILER)?;
                entry.refusal.under(limits)
            }
            Err(reason) => {
                tracing::warn!(%digest, "a remembered refusal of a plugin is judged anew: {reason}");
                let _ = fs::remove_file(path);
                None
            }
        }
    }

    /// Remember a refusal, if it is one that does not pass.
    pub(crate) fn keep_refusal(&self, digest: Digest, error: &LoadError) -> io::Result<()> {
        let Some(refusal) = Refusal::of(error) else {
            return Ok(());
        };
        let entry = serde_json::to_vec(&Entry {
            compiler: COMPILER.to_owned(),
            refusal,
        })?;
        let draft = self.draft()?;
        artifact::write(&draft.file, &entry)?;
        fs::rename(&draft.path, self.refusal_path(digest))?;
        self.trim_refusals();
        Ok(())
    }

    fn trim_refusals(&self) {
        let entries = fs::read_dir(self.folder.path())
            .into_iter()
            .flatten()
            .flatten();
        let mut refusals: Vec<(SystemTime, PathBuf)> = entries
            .map(|entry| (entry.path(), entry.metadata()))
            .filter(|(path, _)| path.extension().is_some_and(|end| end == EXTENSION))
            .filter_map(|(path, metadata)| Some((metadata.ok()?.modified().ok()?, path)))
            .collect();
        if refusals.len() > MOST {
            // A tenth more, so that this is not done at every turn.
            refusals.sort();
            refusals.truncate(refusals.len() - (MOST - MOST / 10));
            for (_, path) in refusals {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn refusal_path(&self, digest: Digest) -> PathBuf {
        self.folder
            .path()
            .join(format!("{digest}-{}.{EXTENSION}", self.compatibility))
    }
}

fn read(path: &std::path::Path) -> Result<Option<Entry>, String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(words)?,
    };
    let length = file.metadata().map_err(words)?.len();
    let Some(length) = length
        .checked_sub(artifact::TRAILER as u64)
        .filter(|length| *length <= ENTRY_BYTES)
    else {
        return Err("it has another length than any that was written".to_owned());
    };
    if !artifact::is_whole(&file).map_err(words)? {
        return Err("it is damaged".to_owned());
    }
    let mut entry = Vec::new();
    File::open(path)
        .and_then(|file| file.take(length).read_to_end(&mut entry))
        .map_err(words)?;
    // What was used last goes last. Nothing is lost if the time cannot be set.
    let _ = file.set_modified(SystemTime::now());
    serde_json::from_slice(&entry).map(Some).map_err(words)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cache(folder: &std::path::Path) -> Cache {
        let engine = wasmtime::Engine::default();
        Cache::open(Some(&folder.join("cache")), 1 << 20, &engine).unwrap()
    }

    fn limits(compile_cpu_seconds: u64, code_bytes: u64) -> LoadLimits {
        LoadLimits {
            compile_cpu_seconds,
            code_bytes,
            ..LoadLimits::default()
        }
    }

    const SLOW: LoadError = LoadError::CompileCpuTime { limit_seconds: 60 };

    #[test]
    fn what_is_refused_for_good_is_refused_again_until_there_is_more_room() {
        let folder = tempfile::tempdir().unwrap();
        let (slow, large, wrong) = (Digest::of(b"slow"), Digest::of(b"large"), Digest::of(b"!"));
        let too_large = LoadError::CodeSize { limit_bytes: 1_000 };
        let invalid = LoadError::Invalid("at 7".to_owned());
        let first = cache(folder.path());
        for (digest, error) in [(slow, &SLOW), (large, &too_large), (wrong, &invalid)] {
            assert_eq!(first.refusal(digest, &limits(60, 1_000)), None);
            first.keep_refusal(digest, error).unwrap();
        }
        let again = cache(folder.path());
        assert_eq!(again.refusal(slow, &limits(60, 1_000)), Some(SLOW));
        assert_eq!(again.refusal(large, &limits(60, 1_000)), Some(too_large));
        assert_eq!(again.refusal(wrong, &limits(999, 9_999)), Some(invalid));
        assert_eq!(again.refusal(slow, &limits(61, 1_000)), None);
        assert_eq!(again.refusal(large, &limits(60, 1_001)), None);
        let less = again.refusal(slow, &limits(10, 1_000));
        assert_eq!(less, Some(LoadError::CompileCpuTime { limit_seconds: 10 }));
    }

    #[test]
    fn too_little_memory_is_remembered_for_compilers_with_no_more_of_it_and_no_fewer_threads() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, digest) = (cache(folder.path()), Digest::of(b"bomb"));
        let with = |compile_memory_bytes| LoadLimits {
            compile_memory_bytes,
            ..LoadLimits::default()
        };
        let refused = |limit_bytes| LoadError::CompileMemory { limit_bytes };
        cache.keep_refusal(digest, &refused(1_000)).unwrap();
        for bytes in [1_000, 10] {
            assert_eq!(cache.refusal(digest, &with(bytes)), Some(refused(bytes)));
        }
        assert_eq!(cache.refusal(digest, &with(1_001)), None);
        let with_more_threads = Refusal::Memory {
            bytes: 1_000,
            threads: threads() + 1,
        };
        assert_eq!(with_more_threads.under(&with(1_000)), None);
    }

    #[test]
    fn what_may_pass_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, digest) = (cache(folder.path()), Digest::of(b"unlucky"));
        for error in [
            LoadError::CompileWallTime { limit_seconds: 600 },
            LoadError::Compile("the compiler ended with signal: 9 (SIGKILL)".to_owned()),
            LoadError::Compiler("too many open files".to_owned()),
            LoadError::Unreadable("too many open files".to_owned()),
        ] {
            cache.keep_refusal(digest, &error).unwrap();
            assert_eq!(cache.refusal(digest, &limits(1, 1)), None, "{error}");
        }
        assert_eq!(fs::read_dir(cache.folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_entry_and_one_of_another_compiler_count_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, digest) = (cache(folder.path()), Digest::of(b"slow"));
        cache.keep_refusal(digest, &SLOW).unwrap();
        let path = cache.refusal_path(digest);
        let whole = fs::read(&path).unwrap();
        let mut decayed = whole.clone();
        decayed[3] ^= 1;
        let huge = vec![b' '; 1 << 20];
        for damaged in [&whole[..whole.len() - 1], &decayed[..], &[], &huge[..]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.refusal(digest, &limits(60, 1)), None);
            assert!(!path.exists());
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(cache.refusal(digest, &limits(60, 1)), Some(SLOW));

        let other = String::from_utf8_lossy(&whole[..whole.len() - artifact::TRAILER])
            .replace(COMPILER, "0.0.0");
        artifact::write(&File::create(&path).unwrap(), other.as_bytes()).unwrap();
        assert_eq!(cache.refusal(digest, &limits(60, 1)), None);
    }

    #[test]
    fn those_that_were_met_longest_ago_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        cache.keep_refusal(digest(0), &SLOW).unwrap();
        let entry = fs::read(cache.refusal_path(digest(0))).unwrap();
        let old = SystemTime::now() - Duration::from_secs(3_600);
        for n in 1..=MOST {
            let path = cache.refusal_path(digest(n));
            fs::write(&path, &entry).unwrap();
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        cache.keep_refusal(digest(MOST + 1), &SLOW).unwrap();
        let left = fs::read_dir(cache.folder.path()).unwrap().count();
        assert_eq!(left, MOST - MOST / 10);
        for newest in [0, MOST + 1] {
            assert_eq!(cache.refusal(digest(newest), &limits(60, 1)), Some(SLOW));
        }
    }
}
