//! Reads from a component's bytes, before anything is compiled, whether the host can serve it.

use wasmparser::{Encoding, Parser, Payload};

use crate::adapt;
use crate::error::LoadError;
use crate::grants::Grants;
use crate::limits::Limits;
use crate::loading::LoadLimits;
use crate::text;
use crate::types::Exports;
use crate::v0_1;

/// The newest version of the contract that this host serves. It serves 0.1.0 as well.
pub const CONTRACT_VERSION: &str = "1.0.0";
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

/// Characters shown of a name in a component.
const NAME: usize = 200;

/// What a component's bytes say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Which interfaces it exports.
    pub exports: Exports,
    /// The version of the contract that its first export is of.
    pub contract: &'static str,
    /// What it imports, in its own order.
    pub imports: Vec<Import>,
    /// Whether it is a core module for WASI preview 1, which becomes a component when it is compiled.
    pub adapted: bool,
}

impl Outline {
    /// Reads the outline of a component, within the limits of loading and at `most` the limits of calls.
    ///
    /// Reads the bytes once from one end to the other and takes nothing in them for granted: it is what the host
    /// itself does with a file before a child compiles it. Whether an import is granted is judged by `grants`.
    ///
    /// # Errors
    ///
    /// Refuses bytes that are not of a component, that have too many parts, or that export nothing of the contract.
    pub fn read(
        bytes: &[u8],
        limits: &LoadLimits,
        most: &Limits,
        grants: &Grants,
    ) -> Result<Self, LoadError> {
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
        let parts = Parts::read(bytes).map_err(|error| {
            if error.message().contains("unexpected end") {
                LoadError::Truncated { bytes: bytes.len() }
            } else {
                LoadError::Invalid(error.to_string())
            }
        })?;
        if parts.is_module && !parts.has_type {
            return Err(LoadError::CoreModule);
        }
        parts.check(limits, most)?;
        let granted =
            |name: &str| is_granted(name, grants) || (parts.is_module && name == adapt::PREVIEW1);
        let imports = parts.imports.iter().map(|name| Import {
            granted: granted(name),
            name: text::printable(name, NAME),
        });
        let outline = Self {
            imports: imports.collect(),
            exports: exports(&parts.exports),
            contract: contract(&parts.exports),
            adapted: parts.is_module,
        };
        if outline.exports == Exports::default() {
            return Err(parts
                .exports
                .iter()
                .find_map(|name| other_version("exports", name))
                .unwrap_or(LoadError::NoExport));
        }
        Ok(outline)
    }
}

/// One thing that a component imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The full name, with its version.
    pub name: String,
    /// Whether plugins are given it.
    pub granted: bool,
}

impl Import {
    /// Whether there is nothing behind it, though plugins are given it: guests are linked with libraries that
    /// import files, sockets, an environment and a terminal, and find no file, no address and no variable.
    pub fn is_empty(&self) -> bool {
        const EMPTY: [&str; 3] = ["wasi:cli/", "wasi:filesystem/", "wasi:sockets/"];
        // What a guest prints goes to its tenant's log, and it may end its call.
        const OTHERS: [&str; 3] = ["wasi:cli/stdout@", "wasi:cli/stderr@", "wasi:cli/exit@"];
        let is_of = |all: &[&str]| all.iter().any(|name| self.name.starts_with(name));
        self.granted && is_of(&EMPTY) && !is_of(&OTHERS)
    }
}

/// What a component, or a core module, is made of.
#[derive(Default)]
struct Parts {
    /// Whether it is a core module as a whole.
    is_module: bool,
    /// Whether it embeds the type of a component.
    has_type: bool,
    /// Names at the outermost level; of a core module's imports the interface only.
    imports: Vec<String>,
    /// The same; of a core module's exports the interface only.
    exports: Vec<String>,
    functions: usize,
    largest_function: usize,
    modules: usize,
    deepest: usize,
    /// What a module begins with, the most of each over all modules.
    memories: usize,
    memory_bytes: usize,
    tables: usize,
    table_elements: usize,
}

impl Parts {
    fn read(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut parts = Self {
            is_module: Parser::is_core_wasm(bytes),
            ..Self::default()
        };
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    parts.deepest = parts.deepest.max(depth);
                    parts.modules += usize::from(encoding == Encoding::Module);
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CodeSectionStart { count, .. } => {
                    parts.functions = parts.functions.saturating_add(count as usize);
                }
                Payload::CodeSectionEntry(body) => {
                    parts.largest_function = parts.largest_function.max(body.range().len());
                }
                Payload::MemorySection(memories) => {
                    let (mut count, mut bytes) = (0, 0_usize);
                    for memory in memories {
                        let memory = memory?;
                        let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(16);
                        bytes = bytes.saturating_add(size(memory.initial.saturating_mul(page)));
                        count += 1;
                    }
                    parts.memories = parts.memories.max(count);
                    parts.memory_bytes = parts.memory_bytes.max(bytes);
                }
                Payload::TableSection(tables) => {
                    let (mut count, mut elements) = (0, 0_usize);
                    for table in tables {
                        elements = elements.saturating_add(size(table?.ty.initial));
                        count += 1;
                    }
                    parts.tables = parts.tables.max(count);
                    parts.table_elements = parts.table_elements.max(elements);
                }
                Payload::CustomSection(section) if parts.is_module => {
                    parts.has_type |= section.name().starts_with("component-type");
                }
                Payload::ImportSection(imports) if parts.is_module => {
                    for import in imports.into_imports() {
                        parts.import(import?.module);
                    }
                }
                Payload::ExportSection(exports) if parts.is_module => {
                    for export in exports {
                        if let Some((interface, _)) = export?.name.split_once('#') {
                            parts.exports.push(interface.to_owned());
                        }
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        parts.import(import?.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        parts.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(parts)
    }

    fn import(&mut self, name: &str) {
        if self.imports.last().is_none_or(|last| last != name) {
            self.imports.push(name.to_owned());
        }
    }

    fn check(&self, limits: &LoadLimits, most: &Limits) -> Result<(), LoadError> {
        let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let counts = [
            ("functions", self.functions, limits.functions),
            (
                "bytes in one function",
                self.largest_function,
                limits.function_bytes,
            ),
            ("core modules", self.modules, limits.modules),
            (
                "components inside one another",
                self.deepest,
                limits.nesting,
            ),
            (
                "memories in one module",
                self.memories,
                count(most.memories),
            ),
            (
                "bytes of memory to begin with",
                self.memory_bytes,
                most.memory_bytes,
            ),
            ("tables in one module", self.tables, count(most.tables)),
            (
                "table elements to begin with",
                self.table_elements,
                most.table_elements,
            ),
        ];
        match counts.into_iter().find(|(_, count, limit)| count > limit) {
            None => Ok(()),
            Some((what, _, limit)) => Err(LoadError::Structure { what, limit }),
        }
    }
}

/// Refuse a component that imports something it is not given.
pub(crate) fn check_imports(outline: &Outline) -> Result<(), LoadError> {
    match outline.imports.iter().find(|import| !import.granted) {
        None => Ok(()),
        Some(import) => Err(other_version("imports", &import.name).unwrap_or_else(|| {
            let (import, found) = (import.name.clone(), served(&import.name));
            match found.and_then(|(interface, _)| Grants::default().of(interface)) {
                Some((key, _)) => LoadError::ImportNotAskedFor { import, key },
                None => LoadError::ImportNotGranted { import },
            }
        })),
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn exports(names: &[String]) -> Exports {
    let exported = |interface: &str| {
        names
            .iter()
            .any(|name| served(name).is_some_and(|(found, _)| found == interface))
    };
    Exports {
        transform: exported("transform"),
        resolve: exported("resolve"),
        classify: exported("classify"),
        sign: exported("sign"),
    }
}

/// The version of the contract that these exports are of.
fn contract(exports: &[String]) -> &'static str {
    let version = exports.iter().find_map(|name| Some(served(name)?.1));
    version.unwrap_or(CONTRACT_VERSION)
}

/// The interface of the contract that a name is of and its version, if this host serves that.
fn served(name: &str) -> Option<(&str, &'static str)> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    if version == CONTRACT_VERSION {
        return Some((interface, CONTRACT_VERSION));
    }
    (version == v0_1::VERSION && v0_1::has(interface)).then_some((interface, v0_1::VERSION))
}

fn is_granted(name: &str, grants: &Grants) -> bool {
    if let Some((interface, _)) = served(name) {
        return matches!(interface, "types" | "log" | "config" | "signing")
            || grants.of(interface).is_some_and(|(_, granted)| granted);
    }
    WASI.iter().any(|package| name.starts_with(package))
        && name
            .split_once('@')
            .is_some_and(|(_, version)| version.starts_with("0.2."))
}

/// The refusal of a name that is the contract's, in another version than this host's.
fn other_version(verb: &'static str, name: &str) -> Option<LoadError> {
    let (interface, _) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    let known = matches!(
        interface,
        "types"
            | "log"
            | "config"
            | "key-value"
            | "http-client"
            | "signing"
            | "transform"
            | "resolve"
            | "classify"
            | "sign"
    );
    (known && served(name).is_none()).then(|| LoadError::ContractVersion {
        verb,
        found: text::printable(name, NAME),
        served: CONTRACT_VERSION,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = r#"
        (component
          (import "wasmhook:plugin/log@1.0.0" (instance))
          (core module (memory 1) (func (export "f")))
          (component (component))
          (instance $e)
          (export "wasmhook:plugin/transform@1.0.0" (instance $e)))"#;

    #[test]
    fn an_outline_names_what_is_exported_and_imported() {
        let bytes = wat::parse_str(WHOLE).unwrap();
        let outline = Outline::read(
            &bytes,
            &LoadLimits::default(),
            &Limits::default(),
            &Grants::default(),
        )
        .unwrap();
        assert!(outline.exports.transform && !outline.exports.resolve && !outline.adapted);
        let names: Vec<&str> = outline.imports.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["wasmhook:plugin/log@1.0.0"]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_outline_or_a_refusal(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Outline::read(&bytes, &LoadLimits::default(), &Limits::default(), &Grants::default());
            let headed = [&b"\0asm\x0d\0\x01\0"[..], &bytes].concat();
            let _ = Outline::read(&headed, &LoadLimits::default(), &Limits::default(), &Grants::default());
        }

        #[test]
        fn a_damaged_component_has_an_outline_or_a_refusal(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            end in any::<prop::sample::Index>(),
        ) {
            let mut bytes = wat::parse_str(WHOLE).unwrap();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Outline::read(&bytes, &LoadLimits::default(), &Limits::default(), &Grants::default());
            bytes.truncate(end.index(bytes.len()));
            let _ = Outline::read(&bytes, &LoadLimits::default(), &Limits::default(), &Grants::default());
        }
    }
}
