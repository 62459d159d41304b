//! Generated from the newest version in `wit/`: arguments are borrowed, results owned.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit/1.0.0",
    // All that a plugin may import and export; each has some of it.
    inline: "
        package wasmhook:host;
        world everything {
            include wasmhook:plugin/plugin@1.0.0;
            include wasmhook:plugin/classifier@1.0.0;
            include wasmhook:plugin/signer@1.0.0;
            import wasmhook:plugin/key-value@1.0.0;
            import wasmhook:plugin/http-client@1.0.0;
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
