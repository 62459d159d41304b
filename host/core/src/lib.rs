//! Domain of wasmhook: events, catalog, endpoints, deliveries, retry, signing, and the traits a host implements.
