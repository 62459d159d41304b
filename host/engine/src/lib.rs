//! Loops of wasmhook: intake, dispatch, and the worker that leases, transforms, delivers and records.
