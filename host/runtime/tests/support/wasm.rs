//! Guests written down as text, where no compiler would make them.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// A transformer that answers to skip every event. `extra` are further fields of the module.
pub fn skipping(extra: &str) -> String {
    importing("", extra)
}

/// The same, with imports.
pub fn importing(imports: &str, extra: &str) -> String {
    skipping_for("1.0.0", imports, extra)
}

/// The same, for a version of the contract.
pub fn skipping_for(version: &str, imports: &str, extra: &str) -> String {
    let parameters = "i32 ".repeat(14);
    format!(
        r#"(module
          {imports}
          (memory (export "memory") 1)
          (data (i32.const 64) "\00\00\00\00\01\00\00\00\60\00\00\00\04\00\00\00")
          (data (i32.const 96) "none")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
          (func (export "wasmhook:plugin/transform@{version}#transform") (param {parameters}) (result i32)
            (i32.const 64))
          {extra})"#
    )
}

/// A core module that embeds the type of a transformer.
pub fn module(text: &str) -> Vec<u8> {
    module_for("1.0.0", text)
}

/// A version of the contract.
pub fn contract(version: &str) -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_path(format!("{wit}/{version}")).unwrap();
    (resolve, package)
}

/// The same, for a version of the contract.
pub fn module_for(version: &str, text: &str) -> Vec<u8> {
    let (resolve, package) = contract(version);
    let world = resolve
        .select_world(&[package], Some("transformer"))
        .unwrap();
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The same as a component.
pub fn component(text: &str) -> Vec<u8> {
    encoded(&module(text))
}

/// The component that a core module with its type is.
pub fn encoded(module: &[u8]) -> Vec<u8> {
    ComponentEncoder::default()
        .module(module)
        .unwrap()
        .encode()
        .unwrap()
}

/// A component that says it transforms, and of which something else is to be looked at.
pub fn claiming(content: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {content}
          (instance $claimed)
          (export "wasmhook:plugin/transform@1.0.0" (instance $claimed)))"#
    );
    wat::parse_str(text).unwrap()
}
