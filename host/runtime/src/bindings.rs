//! Generated from `wit/`: arguments are borrowed, results owned.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
});

pub use exports::wasmhook::plugin::{resolve, transform};
pub use wasmhook::plugin::{config, log, types};
