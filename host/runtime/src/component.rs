//! Reads from a component's bytes, before anything is compiled, whether the host can serve it.

use wasmparser::{Encoding, Parser, Payload};

use crate::error::LoadError;
use crate::limits::Limits;
use crate::types::Exports;

/// The version of the contract that this host serves.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// Its package.
const PACKAGE: &str = "wasmhook:plugin/";
/// The interfaces of WASI 0.2 that are linked, with nothing granted.
const WASI: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// What a component's bytes say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Which interfaces it exports.
    pub exports: Exports,
    /// What it imports, in its own order.
    pub imports: Vec<Import>,
}

/// One thing that a component imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The full name, with its version.
    pub name: String,
    /// Whether plugins are given it.
    pub granted: bool,
}

/// The names at the outermost level of a component.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Read the outline of a component, and refuse the bytes that are none.
pub(crate) fn outline(bytes: &[u8], limits: &Limits) -> Result<Outline, LoadError> {
    if bytes.len() > limits.component_bytes {
        return Err(LoadError::TooLarge {
            limit: limits.component_bytes,
        });
    }
    let start = &bytes[..bytes.len().min(4)];
    if !b"\0asm".starts_with(start) {
        return Err(LoadError::NotWasm);
    }
    if bytes.len() < 8 {
        return Err(LoadError::Truncated { bytes: bytes.len() });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let names = names(bytes).map_err(|error| {
        if error.message().contains("unexpected end") {
            LoadError::Truncated { bytes: bytes.len() }
        } else {
            LoadError::Invalid(error.to_string())
        }
    })?;
    let imports = names.imports.into_iter().map(|name| Import {
        granted: is_granted(&name),
        name,
    });
    let outline = Outline {
        imports: imports.collect(),
        exports: exports(&names.exports),
    };
    if outline.exports == Exports::default() {
        return Err(names
            .exports
            .iter()
            .find_map(|name| other_version("exports", name))
            .unwrap_or(LoadError::NoExport));
    }
    Ok(outline)
}

/// Refuse a component that imports something it is not given.
pub(crate) fn check_imports(outline: &Outline) -> Result<(), LoadError> {
    match outline.imports.iter().find(|import| !import.granted) {
        None => Ok(()),
        Some(import) => Err(other_version("imports", &import.name).unwrap_or_else(|| {
            LoadError::ImportNotGranted {
                import: import.name.clone(),
            }
        })),
    }
}

fn names(bytes: &[u8]) -> wasmparser::Result<Names> {
    let mut names = Names::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version {
                encoding: Encoding::Module | Encoding::Component,
                ..
            } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

fn exports(names: &[String]) -> Exports {
    let exported = |interface: &str| {
        names
            .iter()
            .any(|name| *name == format!("{PACKAGE}{interface}@{CONTRACT_VERSION}"))
    };
    Exports {
        transform: exported("transform"),
        resolve: exported("resolve"),
    }
}

fn is_granted(name: &str) -> bool {
    if let Some(interface) = name.strip_prefix(PACKAGE) {
        let interface = interface.strip_suffix(CONTRACT_VERSION);
        return matches!(interface, Some("types@" | "log@" | "config@"));
    }
    WASI.iter().any(|package| name.starts_with(package))
        && name
            .split_once('@')
            .is_some_and(|(_, version)| version.starts_with("0.2."))
}

/// The refusal of a name that is the contract's, in another version than this host's.
fn other_version(verb: &'static str, name: &str) -> Option<LoadError> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    let known = matches!(
        interface,
        "types" | "log" | "config" | "transform" | "resolve"
    );
    (known && version != CONTRACT_VERSION).then(|| LoadError::ContractVersion {
        verb,
        found: name.to_owned(),
        served: CONTRACT_VERSION,
    })
}
