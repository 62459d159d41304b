//! What the compiler made of each function of a component, kept for the next version of the same plugin, of
//! which most functions are what they were.
//!
//! A function is found by a digest over all that its code is made from, which wasmtime takes: the same digest
//! is the same code. What is kept for a plugin was written by compilers that worked on that plugin's own former
//! versions, and is given to none that works on another's: one that a hostile component took over cannot put
//! code into what its neighbours run.
//!
//! Entries stand one behind the other: the digest, the length in four bytes, and what the compiler wrote.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use wasmtime::CacheStore;

/// Bytes of a digest.
const DIGEST: usize = 32;
/// Bytes before what the compiler wrote.
const HEAD: usize = DIGEST + 4;
/// The most bytes kept for one plugin. 64 MiB: Python's runtime, the largest in common use, has some 58.
pub(crate) const MOST: usize = 64 << 20;

/// Functions by the digest of what they are made from.
type Entries = BTreeMap<[u8; DIGEST], Bytes>;

/// What is known of a plugin's functions while one of its versions is compiled.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    known: Entries,
    /// Those that the version has.
    met: Mutex<Entries>,
}

impl Functions {
    /// Begin with what was kept of the version before. What cannot be read is not known.
    pub(crate) fn known(mut kept: Bytes) -> Self {
        let mut known = Entries::new();
        while kept.len() >= HEAD {
            let mut digest = [0; DIGEST];
            kept.copy_to_slice(&mut digest);
            let length = kept.get_u32_le() as usize;
            if length > kept.len() {
                break;
            }
            known.insert(digest, kept.split_to(length));
        }
        Self {
            known,
            met: Mutex::default(),
        }
    }

    /// What is to be kept of the version that was compiled, as far as it fits.
    pub(crate) fn to_keep(&self, room: usize) -> Vec<u8> {
        let mut kept = Vec::new();
        for (digest, code) in self.met().iter() {
            let (Ok(length), Some(left)) = (
                u32::try_from(code.len()),
                room.checked_sub(kept.len() + HEAD),
            ) else {
                continue;
            };
            if code.len() <= left {
                kept.extend_from_slice(digest);
                kept.extend_from_slice(&length.to_le_bytes());
                kept.extend_from_slice(code);
            }
        }
        kept
    }

    fn met(&self) -> MutexGuard<'_, Entries> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheStore for Functions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let digest: [u8; DIGEST] = key.try_into().ok()?;
        let mut met = self.met();
        // A component may have the same function twice.
        let code = met.get(&digest).or_else(|| self.known.get(&digest))?;
        let code = code.clone();
        let found = code.to_vec();
        met.insert(digest, code);
        Some(Cow::Owned(found))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Ok(digest) = key.try_into() else {
            return false;
        };
        self.met().insert(digest, value.into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; DIGEST] = [1; DIGEST];
    const TWO: [u8; DIGEST] = [2; DIGEST];

    #[test]
    fn what_a_version_has_is_kept_and_nothing_else() {
        let first = Functions::default();
        assert!(first.get(&ONE).is_none());
        assert!(first.insert(&ONE, b"one".to_vec()));
        assert!(first.insert(&TWO, Vec::new()));
        let kept = first.to_keep(MOST);

        let second = Functions::known(kept.clone().into());
        assert_eq!(second.get(&TWO).as_deref(), Some(&b""[..]));
        assert_eq!(
            second.to_keep(MOST).len(),
            HEAD,
            "the other is not in this version"
        );
        assert_eq!(second.get(&ONE).as_deref(), Some(&b"one"[..]));
        assert_eq!(second.to_keep(MOST), kept);
        assert!(!second.insert(b"short", Vec::new()));
    }

    #[test]
    fn what_does_not_fit_or_cannot_be_read_is_left_out() {
        let all = Functions::default();
        all.insert(&ONE, vec![7; 100]);
        all.insert(&TWO, vec![7; 10]);
        let whole = all.to_keep(MOST);
        let kept = all.to_keep(HEAD + 99);
        assert_eq!(kept, &whole[HEAD + 100..]);
        assert!(all.to_keep(HEAD - 1).is_empty());
        for length in 0..whole.len() {
            let cut = Functions::known(Bytes::copy_from_slice(&whole[..length]));
            assert_eq!(cut.get(&ONE).is_some(), length >= HEAD + 100, "{length}");
            assert!(cut.get(&TWO).is_none());
        }
    }
}
