//! Runs the WebAssembly components of tenants: loading, compiling, caching, limits, hot reload, calls.
