//! Makes a component out of a core module for WASI preview 1 that embeds its component's type.
//!
//! That is what compilers make that know nothing of components: bindings generated from
//! `wit/plugin.wit` leave the type in a custom section, and the functions of preview 1 are those of an
//! adapter over the same interfaces of WASI 0.2 that components get.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::Parser;
use wit_component::ComponentEncoder;

/// What core modules for WASI preview 1 import its functions from.
pub(crate) const PREVIEW1: &str = WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
/// The adapter, which is part of what compiled code was made from.
pub(crate) const ADAPTER: &[u8] = WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;

/// The component: the bytes themselves, or made out of a core module. Fails with a sentence.
pub(crate) fn component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !Parser::is_core_wasm(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    ComponentEncoder::default()
        .module(bytes)
        .and_then(|encoder| encoder.adapter(PREVIEW1, ADAPTER))
        .and_then(|encoder| encoder.validate(true).encode())
        .map(Cow::Owned)
        .map_err(|error| format!("{error:#}"))
}
