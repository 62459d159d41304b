//! Generated from `wit/`: arguments are borrowed, results owned.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    // All that a plugin may import and export; each has some of it.
    inline: "
        package wasmhook:host;
        world everything {
            include wasmhook:plugin/plugin@0.1.0;
            include wasmhook:plugin/classifier@0.1.0;
            include wasmhook:plugin/signer@0.1.0;
            import wasmhook:plugin/key-value@0.1.0;
            import wasmhook:plugin/http-client@0.1.0;
        }
    ",
    world: "wasmhook:host/everything",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "wasmhook:plugin/key-value": async | trappable,
        "wasmhook:plugin/http-client": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

pub use exports::wasmhook::plugin::{classify, resolve, sign, transform};
pub use wasmhook::plugin::{config, http_client, key_value, log, signing, types};
