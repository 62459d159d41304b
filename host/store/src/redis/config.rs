//! Settings of the Redis store and stream.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::error::StoreError;

/// The most shards a deployment may have.
pub const MAX_SHARDS: u16 = 256;

/// How to reach Redis and what to call things there. Its debug print holds no credential.
#[derive(Clone)]
pub struct RedisConfig {
    /// How many servers there are and how they stand to each other.
    pub topology: Topology,
    /// The ACL user of the servers, if it is not part of the address.
    pub username: Option<String>,
    /// The password of the servers, if it is not part of the address.
    pub password: Option<SecretString>,
    /// What TLS goes by, where an address begins with `rediss://`.
    pub tls: Tls,
    /// How many replicas must have a write before it is acknowledged; 0 for not waiting.
    pub wait_replicas: u32,
    /// How long to wait for these replicas.
    pub wait_timeout: Duration,
    /// The beginning of every key. Hosts that share it are one deployment.
    pub prefix: String,
    /// Over how many shards tenants are spread, 1 to [`MAX_SHARDS`]. Fixed for the life of a
    /// deployment's data: it is kept in Redis, and another count is refused.
    pub shards: u16,
    /// How long to try to connect at start, and how long one connection may take later on.
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection counts as lost.
    pub response_timeout: Duration,
    /// Key of the stream that producers push to, `<prefix>:events` by custom.
    pub stream: String,
    /// The stream's consumer group: one per deployment.
    pub group: String,
    /// This host's name within the group: one per host, and the same after a restart.
    pub consumer: String,
    /// After how long entries that were handed out and are not acknowledged are taken over. A host that begins, or that
    /// lost an answer, does not wait for it.
    pub claim_after: Duration,
}

/// How many servers there are and how they stand to each other.
#[derive(Clone)]
pub enum Topology {
    /// One server: `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for
    /// TLS, or `unix:///path`.
    Single(SecretString),
    /// A Redis Cluster, by the addresses of some of its nodes: any that answers tells the others.
    Cluster(Vec<SecretString>),
    /// One master with replicas, watched by Sentinels that promote a replica when it fails.
    Sentinel(Sentinels),
}

/// Where the Sentinels are and what they watch.
#[derive(Clone)]
pub struct Sentinels {
    /// The Sentinels' addresses. A database number in them is the servers'.
    pub urls: Vec<SecretString>,
    /// The name that they know the master by.
    pub master: String,
    /// The Sentinels' own ACL user, if it is not part of their addresses.
    pub username: Option<String>,
    /// The Sentinels' own password, if it is not part of their addresses.
    pub password: Option<SecretString>,
}

/// Files that TLS goes by. All are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that servers are trusted by; those of the system if there is none.
    pub ca: Option<PathBuf>,
    /// The certificate that this client shows, with its chain.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
}

/// A setting that cannot be. `setting` is the key under `[redis]` of wasmhook's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Redis setting {setting}: {reason}")]
pub struct InvalidSetting {
    /// Which.
    pub setting: &'static str,
    /// What is expected instead; quotes no value, for it may hold a password.
    pub reason: String,
}

impl InvalidSetting {
    pub(super) fn new(setting: &'static str, reason: impl Into<String>) -> Self {
        Self {
            setting,
            reason: reason.into(),
        }
    }
}

impl From<InvalidSetting> for StoreError {
    fn from(error: InvalidSetting) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl RedisConfig {
    /// The defaults, for one server.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_topology(Topology::Single(SecretString::from(url.into())))
    }

    /// The defaults, for these servers.
    pub fn with_topology(topology: Topology) -> Self {
        Self {
            topology,
            username: None,
            password: None,
            tls: Tls::default(),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            prefix: "wasmhook".to_owned(),
            shards: 4,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            stream: "wasmhook:events".to_owned(),
            group: "wasmhook".to_owned(),
            consumer: "host".to_owned(),
            claim_after: Duration::from_mins(1),
        }
    }

    /// Checks everything that can be checked without reading a file or reaching a server.
    ///
    /// # Errors
    /// Names the first setting that cannot be.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        self.check_names()?;
        if self.wait_replicas > 0 && self.wait_timeout < Duration::from_millis(1) {
            return Err(InvalidSetting::new(
                "wait_timeout",
                "expected at least 1ms, for wait_replicas is set",
            ));
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err(InvalidSetting::new(
                "tls",
                "expected certificate and key together: a client shows both or none",
            ));
        }
        super::connection::address::Addresses::of(self).map(|_| ())
    }

    fn check_names(&self) -> Result<(), InvalidSetting> {
        let refuse = |setting, reason: &str| Err(InvalidSetting::new(setting, reason));
        if self.prefix.is_empty() || self.prefix.contains(['{', '}', '\0']) {
            return refuse("prefix", "expected a text without braces and zero bytes");
        }
        if !(1..=MAX_SHARDS).contains(&self.shards) {
            return Err(InvalidSetting::new(
                "shards",
                format!("expected 1 to {MAX_SHARDS}, not {}", self.shards),
            ));
        }
        for (setting, name) in [
            ("stream", &self.stream),
            ("group", &self.group),
            ("consumer", &self.consumer),
        ] {
            if name.is_empty() {
                return refuse(setting, "expected a name that is not empty");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = super::connection::address::Addresses::of(self)
            .map_or_else(|_| "invalid".to_owned(), |addresses| addresses.to_string());
        f.debug_struct("RedisConfig")
            .field("servers", &servers)
            .field("tls", &self.tls)
            .field("wait_replicas", &self.wait_replicas)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("stream", &self.stream)
            .field("group", &self.group)
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<SecretString> {
        urls.iter().map(|url| SecretString::from(*url)).collect()
    }

    fn cluster(seeds: &[&str]) -> RedisConfig {
        RedisConfig::with_topology(Topology::Cluster(urls(seeds)))
    }

    fn sentinel(addresses: &[&str], master: &str) -> RedisConfig {
        RedisConfig::with_topology(Topology::Sentinel(Sentinels {
            urls: urls(addresses),
            master: master.to_owned(),
            username: None,
            password: None,
        }))
    }

    #[test]
    fn no_print_holds_the_password() {
        let mut good = RedisConfig::new("redis://user:hunter2@example.org:6380/1");
        let printed = format!("{good:?}");
        assert!(printed.contains("example.org:6380"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
        good.password = Some(SecretString::from("hunter3"));
        assert!(!format!("{good:?}").contains("hunter3"));
        assert!(!good.check().unwrap_err().to_string().contains("hunter"));
        let bad = RedisConfig::new("redis//user:hunter2@example.org");
        assert!(!format!("{bad:?}").contains("hunter2"));
        let error = bad.check().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        type Change = fn(&mut RedisConfig);
        let change: [(&str, Change); 10] = [
            ("shards", |c| c.shards = 0),
            ("shards", |c| c.shards = MAX_SHARDS + 1),
            ("prefix", |c| c.prefix = "a{b".to_owned()),
            ("prefix", |c| c.prefix.clear()),
            ("group", |c| c.group.clear()),
            ("wait_timeout", |c| {
                c.wait_replicas = 1;
                c.wait_timeout = Duration::ZERO;
            }),
            ("tls", |c| c.tls.key = Some("key.pem".into())),
            ("tls", |c| c.tls.ca = Some("ca.pem".into())),
            ("username", |c| c.username = Some("bob".to_owned())),
            ("url", |c| {
                c.topology = Topology::Single(SecretString::from("rediss://localhost/#insecure"));
            }),
        ];
        for (setting, change) in change {
            let mut config = RedisConfig::new("redis://localhost");
            assert_eq!(config.check(), Ok(()));
            change(&mut config);
            assert_eq!(config.check().unwrap_err().setting, setting);
        }
    }

    #[test]
    fn what_does_not_fit_the_topology_is_refused_by_name() {
        let cases = [
            (cluster(&[]), "urls"),
            (cluster(&["redis://a/1"]), "urls"),
            (cluster(&["unix:///run/redis.sock"]), "urls"),
            (cluster(&["redis://a", "rediss://b"]), "urls"),
            (cluster(&["redis://:x@a", "redis://:y@b"]), "urls"),
            (sentinel(&[], "queue"), "urls"),
            (sentinel(&["redis://a"], ""), "sentinel_master"),
            (sentinel(&["redis://a/1", "redis://b/2"], "queue"), "urls"),
            (RedisConfig::new("http://localhost"), "url"),
        ];
        for (config, setting) in cases {
            assert_eq!(
                config.check().unwrap_err().setting,
                setting,
                "{:?}",
                config.check()
            );
        }
        for config in [
            cluster(&["redis://a:7000", "redis://b:7000"]),
            cluster(&["rediss://bob:x@a", "rediss://bob:x@b"]),
            sentinel(&["redis://a:26379", "redis://b:26379"], "queue"),
            sentinel(&["rediss://a/3", "rediss://b/3"], "queue"),
            RedisConfig::new("unix:///run/redis.sock"),
            RedisConfig::new("rediss://localhost"),
        ] {
            assert_eq!(config.check(), Ok(()));
        }
    }
}
