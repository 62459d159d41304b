//! Whether memory was refused by a bound of ours or because the machine has none left.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// What accounting of memory Linux is set to: with 2 it gives no more than it could keep its word for.
const ACCOUNTING: &str = "/proc/sys/vm/overcommit_memory";
const STRICT: &str = "2";
/// Sizes in KiB, by name.
const MEMORY: &str = "/proc/meminfo";

/// Whether the machine would give a process this much memory now, so that one that was refused less a
/// moment ago met a bound set for it. In doubt it would not.
pub(crate) fn would_give(bytes: u64) -> bool {
    let ceilings = [Resource::Data, Resource::As].map(|kind| getrlimit(kind).maximum);
    let is_below = |ceiling: &Option<u64>| ceiling.is_none_or(|ceiling| bytes <= ceiling);
    ceilings.iter().all(is_below)
        && fs::read_to_string(MEMORY).is_ok_and(|sizes| {
            let is_strict = fs::read_to_string(ACCOUNTING)
                .map_or(true, |accounting| accounting.trim() == STRICT);
            room(&sizes, is_strict).is_some_and(|room| bytes <= room)
        })
}

/// Bytes that a process could have, by what Linux says of its memory.
fn room(sizes: &str, is_strict: bool) -> Option<u64> {
    let size = |name: &str| -> Option<u64> {
        let mut lines = sizes.lines();
        let size = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let available = size("MemAvailable")?;
    if !is_strict {
        return Some(available);
    }
    let promised = size("CommitLimit")?.saturating_sub(size("Committed_AS")?);
    Some(available.min(promised))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_is_available_and_under_strict_accounting_not_promised_to_others() {
        let sizes = "MemTotal:       8000 kB\nMemAvailable:   4000 kB\n\
                     CommitLimit:    5000 kB\nCommitted_AS:   2000 kB\n";
        assert_eq!(room(sizes, false), Some(4000 << 10));
        assert_eq!(room(sizes, true), Some(3000 << 10));
        let overdrawn = sizes.replace("2000", "6000");
        assert_eq!(room(&overdrawn, true), Some(0));
        for unknown in ["", "MemAvailable: many kB\n", "MemAvailable: 7\n"] {
            assert_eq!(room(unknown, false), None);
        }
        assert_eq!(room("MemAvailable: 7 kB\n", true), None);
    }

    #[test]
    fn this_machine_has_a_page_and_not_all_that_can_be_counted() {
        assert!(would_give(4096));
        assert!(!would_give(u64::MAX));
    }
}
