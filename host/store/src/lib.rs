//! Durable queue and records of wasmhook, on Redis and on an embedded SQLite file.
