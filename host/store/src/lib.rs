//! Durable queue and records of wasmhook, on Redis and on an embedded `SQLite` file.
//!
//! [`Store`] is what the host asks of a store; [`redis`] and [`embedded`] are the two there are, and
//! [`conformance`] is the one suite both pass. Adding a store is: implement the trait, run the suite.
//! [`KeyValue`], what plugins keep, is apart from it, with a suite of its own in [`kv_conformance`].
#![forbid(unsafe_code)]

pub mod check;
pub mod conformance;
pub mod embedded;
pub mod error;
pub mod kv;
pub mod kv_conformance;
mod plugin_use;
pub mod queue;
pub mod redis;
mod stalling;
pub mod stream;

pub use check::{CheckReport, CheckRequest, Finding};
pub use error::StoreError;
pub use kv::{Forgotten, KeyValue, KeyValueError, KeyValueQuota, Writing};
pub use queue::{
    Backlog, Batch, Cursor, EventDeliveries, Filter, Fullness, LeaseRequest, LeaseToken, Leased,
    NewWork, Outcome, Page, Record, Recorded, RejectedEvent, Retention, Store,
};
pub use stream::{EntryId, EntryIdError, EventStream, StreamEntry};
