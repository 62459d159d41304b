//! Giving the memory of code that nobody calls back to the system.
//!
//! Code is mapped from a file of the cache, so what was read of it while it was loaded, and run since, can
//! be dropped and is found again in the system's cache of files, at the cost of a few page faults. Without
//! this a host with ten thousand plugins has all of their code in its memory as soon as it has started.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
use wasmtime::component::Component;

/// What Linux says of each page of a process, 64 bits each: see its documentation of `pagemap`.
const PAGES: &str = "/proc/self/pagemap";
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page is the file's own, and no copy that was written to.
const OF_FILE: u64 = 1 << 61;

/// Drop the pages of a component's code, if the file that they were mapped from has all that is in them.
/// Whoever runs it meanwhile, or later, reads them again. Says whether that was done.
#[allow(unsafe_code, reason = "memory is given back by its address")]
pub(crate) fn give_back(component: &Component) -> io::Result<bool> {
    let image = component.image_range();
    let (start, bytes) = (image.start.addr(), image.end.addr() - image.start.addr());
    if bytes == 0 || start % page_size() != 0 {
        return Ok(false);
    }
    let mut entries = vec![0; bytes.div_ceil(page_size()) * ENTRY];
    let first = (start / page_size() * ENTRY) as u64;
    File::open(PAGES)?.read_exact_at(&mut entries, first)?;
    let is_unwritten = |entry: &[u8; ENTRY]| {
        let entry = u64::from_ne_bytes(*entry);
        entry & SWAPPED == 0 && (entry & PRESENT == 0 || entry & OF_FILE != 0)
    };
    let (entries, _) = entries.as_chunks::<ENTRY>();
    if !entries.iter().all(is_unwritten) {
        // It was patched when it was loaded, or is mapped from no file.
        return Ok(false);
    }
    // SAFETY: the range is mapped as long as `component` lives. Each page in it is either the file's or
    // not there at all, which cannot change, because the mapping is read-only since it was loaded. So what
    // is read after the call is what was read before it: the file's content, and entries of the cache are
    // never written to.
    unsafe { madvise(image.start.cast_mut().cast(), bytes, Advice::LinuxDontNeed) }?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;
    use crate::artifact;
    use crate::cache::Cache;
    use crate::code_id::CodeId;
    use crate::engine::code_config;
    use crate::types::Digest;

    /// Pages of its code that are in the memory of this process.
    fn resident(component: &Component) -> usize {
        let image = component.image_range();
        let (start, end) = (image.start.addr(), image.end.addr());
        let mut entries = vec![0; (end - start).div_ceil(page_size()) * ENTRY];
        File::open(PAGES)
            .unwrap()
            .read_exact_at(&mut entries, (start / page_size() * ENTRY) as u64)
            .unwrap();
        let is_present = |entry: &&[u8; ENTRY]| u64::from_ne_bytes(**entry) & PRESENT != 0;
        entries
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .filter(is_present)
            .count()
    }

    #[test]
    fn mapped_code_is_given_back_and_found_again_and_other_code_is_left() {
        let bytes = wat::parse_str(
            "(component (core module $m (func (export \"f\") (result i32) (i32.const 7)))
               (core instance $i (instantiate $m)))",
        )
        .unwrap();
        let engine = Engine::new(&code_config()).unwrap();
        let cache = Cache::open(None, 1 << 30, &engine).unwrap();
        let draft = cache.draft().unwrap();
        let code = engine.precompile_component(&bytes).unwrap();
        artifact::write(&draft.file().unwrap(), &code).unwrap();
        let id = CodeId::shared(Digest::of(&bytes));
        cache.keep(&draft, id).unwrap();

        let mapped = cache.take_up(&engine, id).unwrap();
        assert!(resident(&mapped) > 0, "loading reads it");
        assert!(give_back(&mapped).unwrap());
        assert_eq!(resident(&mapped), 0);
        // What is mapped has the file's checksum behind it.
        let read_again = mapped.serialize().unwrap();
        assert!(read_again.starts_with(&code), "it is not what it was");
        assert!(resident(&mapped) > 0);

        let made_here = Component::new(&engine, &bytes).unwrap();
        let before = resident(&made_here);
        assert!(!give_back(&made_here).unwrap());
        assert_eq!(resident(&made_here), before);
    }
}
