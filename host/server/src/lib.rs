//! HTTP API of wasmhook.
