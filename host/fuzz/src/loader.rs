//! What the host itself reads of a plugin's file, before anything is given to a compiler in a process of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmhook_runtime::{Grants, Limits, LoadLimits, Outline};

fuzz_target!(|bytes: &[u8]| {
    let limits = LoadLimits::default();
    if let Ok(outline) = Outline::read(bytes, &limits, &Limits::default(), &Grants::default()) {
        // Somebody's terminal shows them.
        let printable = |name: &str| !name.chars().any(char::is_control);
        assert!(outline.imports.iter().all(|import| printable(&import.name)));
    }
});
