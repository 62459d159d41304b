//! Connecting: TLS, users, sockets, and what is said when it cannot be.
