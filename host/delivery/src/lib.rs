//! HTTP client of wasmhook: address rules, the exchange with a receiver, its classification.
