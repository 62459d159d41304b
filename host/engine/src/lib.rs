//! Loops of wasmhook: intake, dispatch, and the worker that leases, transforms, delivers and records.
//!
//! This is where the rooms meet: rules come from `wasmhook-core`, durability from `wasmhook-store`,
//! tenants' code from `wasmhook-runtime`, the exchange from `wasmhook-delivery`. Nothing here knows
//! which store it runs on or how events arrive.
#![forbid(unsafe_code)]

pub mod attempt;
pub mod backoff;
pub mod classify;
mod fetch;
pub mod healing;
pub mod housekeeping;
pub mod intake;
mod key_value;
pub mod metric;
mod pace;
pub mod pressure;
pub mod quotas;
pub mod recorder;
pub mod resolve;
pub mod sign;
mod slow_resolvers;
pub mod stream;
pub mod transform;
pub mod worker;

pub use attempt::{Attempter, AttempterConfig};
pub use fetch::PluginHttp;
pub use housekeeping::Housekeeping;
pub use intake::{Intake, IntakeConfig, Source, Taken, Verdict};
pub use key_value::PluginKeyValue;
pub use pressure::{Pressure, PressureConfig, PressureGauge};
pub use quotas::Quotas;
pub use stream::StreamReader;
pub use worker::{Worker, WorkerConfig};
