//! Real parts for tests and benchmarks: a Redis server of its own and an HTTP receiver on loopback.
