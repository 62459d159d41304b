//! The wasmhook binary: configuration, wiring and commands.
fn main() {}
