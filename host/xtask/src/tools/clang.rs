//! A C compiler for WebAssembly.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::{debian, output};
use crate::root;

/// The version of a clang that makes WASI programs. `WASI_CC` may name one.
pub(crate) fn find() -> anyhow::Result<String> {
    let named = std::env::var("WASI_CC");
    let clang = named.as_deref().unwrap_or("clang");
    if makes_wasi_programs(clang)?
        || (named.is_err()
            && debian::install(
                &["clang", "lld", "wasi-libc", "libclang-rt-dev-wasm32"],
                "for plugins in C",
            )
            && makes_wasi_programs(clang)?)
    {
        return Ok(output(clang, &["--version"]).unwrap_or_default());
    }
    bail!(
        "it needs clang with lld, wasi-libc and compiler-rt for wasm32 (Debian: clang lld wasi-libc \
         libclang-rt-dev-wasm32), or the clang of a wasi-sdk named in WASI_CC"
    )
}

/// Whether a small program compiles and links.
fn makes_wasi_programs(clang: &str) -> anyhow::Result<bool> {
    let folder = root().join("plugins/target/tools");
    let source = folder.join("probe.c");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&source, "int main(void) { return 0; }\n"))
        .with_context(|| format!("cannot write {}", source.display()))?;
    Ok(Command::new(clang)
        .arg("--target=wasm32-wasi")
        .arg(&source)
        .arg("-o")
        .arg(folder.join("probe.wasm"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success()))
}
