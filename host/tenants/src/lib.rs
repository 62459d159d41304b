//! Tenants folder of wasmhook: endpoints and secrets read from disk, and the watch that notices changes.
