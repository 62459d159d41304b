//! The configuration: every key, its default, and why the default is what it is.
//!
//! Read from one TOML file, then `WASMHOOK_…` variables (`WASMHOOK_HTTP__LISTEN` is `http.listen`),
//! then `--set`, each over the one before. Relative paths are relative to the file's folder.

mod environment;
mod load;
mod nearest;
mod plugins;
mod redis;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use wasmhook_core::RetryPolicy;

use crate::args::LogFormat;
pub(crate) use plugins::Plugins;
use redis::Redis;

/// The longest duration: what is added to a date, or counted in milliseconds, stays far within what can be held.
const LONGEST_SPAN: Duration = Duration::from_hours(24 * 365 * 1000);

/// A duration written like `250ms`, `5s`, `2h` or `7days`, of at most [`LONGEST_SPAN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom("expected a duration such as \"250ms\", \"5s\", \"2h\" or \"7days\"")
        })?;
        if span > LONGEST_SPAN {
            return Err(D::Error::custom("expected at most a thousand years"));
        }
        Ok(Self(span))
    }
}

const fn seconds(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The folder that relative paths start from. Set by the loader.
    #[serde(skip)]
    pub(crate) base: PathBuf,
    /// The file it was read from, if any. Set by the loader.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) catalog: Catalog,
    #[serde(default)]
    pub(crate) store: Store,
    #[serde(default)]
    pub(crate) redis: Redis,
    #[serde(default)]
    pub(crate) tenants: Tenants,
    #[serde(default)]
    pub(crate) plugins: Plugins,
    #[serde(default)]
    pub(crate) http: Http,
    #[serde(default)]
    pub(crate) intake: Intake,
    #[serde(default)]
    pub(crate) delivery: Delivery,
    #[serde(default)]
    pub(crate) worker: Worker,
    #[serde(default)]
    pub(crate) retry: Retry,
    #[serde(default)]
    pub(crate) retention: Retention,
    #[serde(default)]
    pub(crate) log: Log,
}

/// `[catalog]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Catalog {
    /// Event types that exist. Whatever is not listed is refused, so there is no default.
    pub(crate) types: Vec<String>,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// Where deliveries live.
    pub(crate) kind: StoreKind,
    /// Folder of the embedded store.
    pub(crate) path: PathBuf,
}

/// The two stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// An `SQLite` file: one host, nothing to install.
    #[default]
    Embedded,
    /// Redis: any number of hosts, and the event stream.
    Redis,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::default(),
            path: "data".into(),
        }
    }
}

/// `[tenants]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tenants {
    /// A folder per tenant.
    pub(crate) folder: PathBuf,
    /// A folder per tenant with a file per secret.
    pub(crate) secrets: PathBuf,
    /// How often the folders are looked through even if no watch reported a change: watches get lost.
    pub(crate) rescan: Span,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            folder: "tenants".into(),
            secrets: "secrets".into(),
            rescan: seconds(5),
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Where the API listens. Anything but loopback needs a token.
    pub(crate) listen: SocketAddr,
    /// The bearer token of the API.
    #[serde(deserialize_with = "optional_secret_text")]
    pub(crate) token: Option<SecretString>,
    /// The largest request body, in bytes.
    pub(crate) max_body_bytes: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 8080),
            token: None,
            max_body_bytes: 8 * 1024 * 1024,
        }
    }
}

/// `[intake]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_field_names,
    reason = "they are the names of keys, and all are bounds"
)]
pub(crate) struct Intake {
    /// The largest payload, in bytes.
    pub(crate) max_payload_bytes: usize,
    /// Deliveries that may wait before events are left in the stream and pushes answered with 429; 0
    /// for no limit. Five million of a kilobyte take some ten gigabytes.
    pub(crate) max_waiting: u64,
    /// The share of Redis's `maxmemory`, in percent, above which the same happens; 0 for no limit. At
    /// 100 Redis refuses to record what was delivered.
    pub(crate) max_memory_percent: u8,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            max_payload_bytes: wasmhook_core::dispatch::DEFAULT_MAX_PAYLOAD,
            max_waiting: 5_000_000,
            max_memory_percent: 85,
        }
    }
}

/// `[delivery]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Delivery {
    /// One deadline over the whole exchange, name lookup and response body included.
    pub(crate) timeout: Span,
    /// How much of a response is read, in bytes; its beginning is kept with the attempt.
    pub(crate) response_bytes: usize,
    /// Whether endpoints may use `http`.
    pub(crate) allow_http: bool,
    /// Whether deliveries may go to addresses that are not globally routable.
    pub(crate) allow_private_addresses: bool,
    /// Networks that deliveries may go to although they are not globally routable, such as
    /// `10.1.0.0/16`.
    pub(crate) allowed_networks: Vec<ipnet::IpNet>,
    /// How the host names itself; `wasmhook/<version>` if missing.
    pub(crate) user_agent: Option<String>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: seconds(10),
            response_bytes: 4096,
            allow_http: false,
            allow_private_addresses: false,
            allowed_networks: Vec::new(),
            user_agent: None,
        }
    }
}

/// `[worker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    /// Deliveries in flight on this host, from lease to record. 1024: with 2048 a host of two cores takes on so much
    /// beside many slow receivers that a light tenant's p99
    /// went above twice what it is alone (measured).
    pub(crate) concurrency: usize,
    /// Deliveries in flight for one endpoint, over all hosts: what a dead receiver can occupy for the length of
    /// `delivery.timeout`, until the store leases it fewer. 512, of which most are on their way from or to the
    /// store when a receiver answers at once: with 256 an eighth
    /// of two cores was idle while a single endpoint took all there was, with 128 a fifth, and with 64 it was
    /// slower by a third (measured).
    pub(crate) max_per_endpoint: usize,
    /// Deliveries in flight for one tenant, over all endpoints and hosts, where its `tenant.toml` does not say
    /// (`max_in_flight`). No such limit if missing: one tenant alone can use the whole host then.
    pub(crate) max_per_tenant: Option<u32>,
    /// Deliveries leased in one call.
    pub(crate) batch: usize,
    /// Time to record an outcome while the store is slow or away for a moment. A lease lasts
    /// `delivery.timeout`, `plugins.budget` and this together; so it is always longer than an attempt,
    /// and what a killed host held is taken over after it.
    pub(crate) recording_room: Span,
    /// How long to let deliveries finish at a stop, and requests to the API.
    pub(crate) grace: Span,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: 1024,
            max_per_endpoint: 512,
            max_per_tenant: None,
            batch: 128,
            recording_room: seconds(20),
            grace: seconds(20),
        }
    }
}

/// `[retry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// Waits between attempts; empty for the exponential ones below. The default is the example of
    /// Standard Webhooks: ten attempts over some three days.
    pub(crate) schedule: Vec<Span>,
    /// First exponential wait, doubled each time.
    pub(crate) base: Span,
    /// Longest exponential wait.
    pub(crate) maximum: Span,
    /// Attempts in all, when there is no schedule.
    pub(crate) max_attempts: u32,
    /// Share of each wait that is added or taken at random, 0.0 to 1.0.
    pub(crate) jitter: f64,
    /// The longest wait that a receiver can ask for with `Retry-After`, or a classifier plugin by its
    /// answer. An hour: longer than outages are announced for, short beside the schedule's last waits.
    pub(crate) asked_maximum: Span,
}

impl Default for Retry {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let waits = [
            5,
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        let exponential = RetryPolicy::default();
        Self {
            schedule: waits.into_iter().map(seconds).collect(),
            base: Span(exponential.base),
            maximum: Span(exponential.maximum),
            max_attempts: exponential.max_attempts,
            jitter: 0.1,
            asked_maximum: Span(exponential.asked_maximum),
        }
    }
}

impl Retry {
    pub(crate) fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            base: self.base.0,
            maximum: self.maximum.0,
            schedule: self.schedule.iter().map(|span| span.0).collect(),
            max_attempts: self.max_attempts,
            jitter: self.jitter,
            asked_maximum: self.asked_maximum.0,
        }
    }
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    /// Finished deliveries are kept this long.
    pub(crate) age: Span,
    /// At most this many finished deliveries are kept per tenant.
    pub(crate) count: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: seconds(7 * 24 * 60 * 60),
            count: 100_000,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// For people or machines.
    pub(crate) format: LogFormat,
    /// A level, or directives such as `info,wasmhook_engine=debug`.
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".into(),
        }
    }
}

impl Config {
    /// Where plugins lie.
    pub(crate) fn plugin_folders(&self) -> wasmhook_runtime::PluginFolders {
        let global = self.plugins.global.as_deref();
        wasmhook_runtime::PluginFolders {
            tenants: self.path(&self.tenants.folder),
            global: global.map(|folder| self.path(folder)),
        }
    }

    /// A path of the configuration, from the folder that relative ones start from.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// How long one attempt may take: the exchange, and the plugins before it.
    pub(crate) fn attempt_deadline(&self) -> Duration {
        self.delivery.timeout.0 + self.plugins.budget.0
    }

    /// How long a lease lasts: always longer than an attempt, so that a delivery is not sent twice
    /// because its receiver is slow, with room for recording it.
    pub(crate) fn lease(&self) -> Duration {
        self.attempt_deadline() + self.worker.recording_room.0
    }
}

/// A text that may look like a number in the environment, such as a token of digits.
fn secret_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text")]
    enum Text {
        Text(String),
        Digits(u64),
    }
    Ok(match Text::deserialize(deserializer)? {
        Text::Text(text) => SecretString::from(text),
        Text::Digits(number) => SecretString::from(number.to_string()),
    })
}

fn optional_secret_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    secret_text(deserializer).map(Some)
}
