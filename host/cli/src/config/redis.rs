//! `[redis]`: where the servers are, how they stand to each other, and what things are called there.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::Deserializer;
use wasmhook_store::redis::{RedisConfig, Sentinels, Tls, Topology};

use super::{Span, optional_secret_text, seconds};

/// Where a server on this machine is.
const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

/// `[redis]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    /// How many servers there are and how they stand to each other.
    pub(crate) topology: TopologyKind,
    /// `redis://[user:password@]host[:port][/db]`, the same with `rediss://` for TLS, or
    /// `unix:///path`; `redis://127.0.0.1:6379` if missing. Kept as a secret for its password.
    #[serde(deserialize_with = "optional_secret_text")]
    pub(crate) url: Option<SecretString>,
    /// Instead of `url`, where there are several: some nodes of the cluster, or the Sentinels.
    #[serde(deserialize_with = "secret_texts")]
    pub(crate) urls: Vec<SecretString>,
    /// The ACL user of the servers, if the address names none.
    pub(crate) username: Option<String>,
    /// The password of the servers, if the address holds none.
    #[serde(deserialize_with = "optional_secret_text")]
    pub(crate) password: Option<SecretString>,
    /// The file that holds the password, instead.
    pub(crate) password_file: Option<PathBuf>,
    /// The name that the Sentinels know the master by.
    pub(crate) sentinel_master: Option<String>,
    /// The Sentinels' own user, if their addresses name none.
    pub(crate) sentinel_username: Option<String>,
    /// The Sentinels' own password, if their addresses hold none.
    #[serde(deserialize_with = "optional_secret_text")]
    pub(crate) sentinel_password: Option<SecretString>,
    /// The file that holds the Sentinels' password, instead.
    pub(crate) sentinel_password_file: Option<PathBuf>,
    /// What TLS goes by.
    pub(crate) tls: RedisTls,
    /// How many replicas must have a write before it is acknowledged. 0, for it costs the way to
    /// the replicas each time, and with too few of them nothing is acknowledged any more.
    pub(crate) wait_replicas: u32,
    /// How long to wait for these replicas.
    pub(crate) wait_timeout: Span,
    /// The beginning of every key, so that several deployments can share one Redis.
    pub(crate) prefix: String,
    /// How many shards the queue has. Fixed once the queue exists.
    pub(crate) shards: u16,
    /// The stream that producers push to; `<prefix>:events` if missing.
    pub(crate) stream: Option<String>,
    /// The consumer group on the stream, one per deployment.
    pub(crate) group: String,
    /// This host's name in the group; the machine's host name if missing. Two hosts on one Redis
    /// need two names.
    pub(crate) consumer: Option<String>,
    /// How long to wait for Redis at start.
    pub(crate) connect_timeout: Span,
}

/// How many servers there are and how they stand to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TopologyKind {
    /// One server.
    #[default]
    Single,
    /// A Redis Cluster.
    Cluster,
    /// A master with replicas, watched by Sentinels.
    Sentinel,
}

/// `[redis.tls]`: PEM files, for addresses that begin with `rediss://`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RedisTls {
    /// Certificates that servers are trusted by; those of the system if missing.
    pub(crate) ca: Option<PathBuf>,
    /// The certificate that this host shows, with its chain.
    pub(crate) certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub(crate) key: Option<PathBuf>,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            topology: TopologyKind::default(),
            url: None,
            urls: Vec::new(),
            username: None,
            password: None,
            password_file: None,
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_password_file: None,
            tls: RedisTls::default(),
            wait_replicas: 0,
            wait_timeout: seconds(1),
            prefix: "wasmhook".into(),
            shards: 4,
            stream: None,
            group: "wasmhook".into(),
            consumer: None,
            connect_timeout: seconds(10),
        }
    }
}

/// A key below `[redis]` that cannot be as it is, and what is expected.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) key: &'static str,
    pub(crate) expected: String,
}

fn wrong<T>(key: &'static str, expected: impl Into<String>) -> Result<T, Wrong> {
    let expected = expected.into();
    Err(Wrong { key, expected })
}

impl Redis {
    /// The store's settings; relative paths start from `base`.
    pub(crate) fn settings(&self, base: &Path) -> Result<RedisConfig, Wrong> {
        let mut settings = RedisConfig::with_topology(self.topology(base)?);
        settings.username.clone_from(&self.username);
        settings.password = secret(
            ("password", self.password.as_ref()),
            ("password_file", self.password_file.as_deref()),
            base,
        )?;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| base.join(path));
        settings.tls = Tls {
            ca: path(&self.tls.ca),
            certificate: path(&self.tls.certificate),
            key: path(&self.tls.key),
        };
        settings.wait_replicas = self.wait_replicas;
        settings.wait_timeout = self.wait_timeout.0;
        settings.prefix.clone_from(&self.prefix);
        settings.shards = self.shards;
        settings.stream = self
            .stream
            .clone()
            .unwrap_or_else(|| format!("{}:events", self.prefix));
        settings.group.clone_from(&self.group);
        settings.connect_timeout = self.connect_timeout.0;
        if let Some(consumer) = self.consumer.clone().or_else(host_name) {
            settings.consumer = consumer;
        }
        settings.check().or_else(|invalid| match invalid.setting {
            "urls" if self.urls.is_empty() => wrong("url", invalid.reason),
            setting => wrong(setting, invalid.reason),
        })?;
        Ok(settings)
    }

    fn topology(&self, base: &Path) -> Result<Topology, Wrong> {
        if self.url.is_some() && !self.urls.is_empty() {
            return wrong("urls", "expected either `redis.url` or this, not both");
        }
        if self.topology != TopologyKind::Sentinel {
            for (key, set) in [
                ("sentinel_master", self.sentinel_master.is_some()),
                ("sentinel_username", self.sentinel_username.is_some()),
                ("sentinel_password", self.sentinel_password.is_some()),
                (
                    "sentinel_password_file",
                    self.sentinel_password_file.is_some(),
                ),
            ] {
                if set {
                    return wrong(
                        key,
                        "expected `redis.topology` to be \"sentinel\" with this",
                    );
                }
            }
        }
        let default = || SecretString::from(DEFAULT_URL);
        if self.topology == TopologyKind::Single {
            if !self.urls.is_empty() {
                return wrong(
                    "urls",
                    "expected `redis.topology` to be \"cluster\" or \"sentinel\" with this; a single server is `redis.url`",
                );
            }
            return Ok(Topology::Single(self.url.clone().unwrap_or_else(default)));
        }
        let urls = match &self.url {
            Some(url) => vec![url.clone()],
            None => self.urls.clone(),
        };
        if urls.is_empty() {
            return wrong("urls", "expected the addresses of some nodes or Sentinels");
        }
        if self.topology == TopologyKind::Cluster {
            return Ok(Topology::Cluster(urls));
        }
        let Some(master) = self.sentinel_master.clone() else {
            return wrong(
                "sentinel_master",
                "expected the name that the Sentinels know the master by",
            );
        };
        Ok(Topology::Sentinel(Sentinels {
            urls,
            master,
            username: self.sentinel_username.clone(),
            password: secret(
                ("sentinel_password", self.sentinel_password.as_ref()),
                (
                    "sentinel_password_file",
                    self.sentinel_password_file.as_deref(),
                ),
                base,
            )?,
        }))
    }
}

/// A secret as it is, or the first line of a file.
fn secret(
    (key, text): (&'static str, Option<&SecretString>),
    (file_key, file): (&'static str, Option<&Path>),
    base: &Path,
) -> Result<Option<SecretString>, Wrong> {
    let Some(file) = file else {
        return Ok(text.cloned());
    };
    if text.is_some() {
        return wrong(
            file_key,
            format!("expected either `redis.{key}` or this, not both"),
        );
    }
    let file = base.join(file);
    let content = match std::fs::read_to_string(&file) {
        Ok(content) => SecretString::from(content),
        Err(error) => return wrong(file_key, format!("cannot read {}: {error}", file.display())),
    };
    // Some editors begin a file with a mark of its byte order.
    let text = content.expose_secret().trim_start_matches('\u{feff}');
    match text.lines().next().map(str::trim_end) {
        None | Some("") => wrong(file_key, format!("{} is empty", file.display())),
        Some(line) => Ok(Some(SecretString::from(line))),
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/etc/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn secret_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretString>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(SecretString::from).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn read(text: &str) -> Redis {
        toml(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn toml(text: &str) -> Result<Redis, String> {
        use figment::providers::{Format as _, Toml};
        let figment = figment::Figment::from(Toml::string(text));
        figment.extract().map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> Wrong {
        read(text).settings(Path::new("/nowhere")).unwrap_err()
    }

    #[test]
    fn nothing_set_is_one_server_on_this_machine() {
        let settings = read("").settings(Path::new("")).unwrap();
        let Topology::Single(url) = &settings.topology else {
            panic!("expected a single server");
        };
        assert_eq!(url.expose_secret(), DEFAULT_URL);
        assert_eq!(settings.stream, "wasmhook:events");
        assert_eq!(settings.wait_replicas, 0);
    }

    #[test]
    fn every_topology_can_be_written() {
        for text in [
            "url = 'rediss://queue@example.org/2'\npassword = 'x'\ntls.ca = 'ca.pem'",
            "url = 'unix:///run/redis.sock'",
            "topology = 'cluster'\nurls = ['redis://a:7000', 'redis://b:7000']",
            "topology = 'cluster'\nurl = 'redis://a'",
            "topology = 'sentinel'\nurls = ['redis://a:26379']\nsentinel_master = 'queue'\nsentinel_password = 'x'\nusername = 'queue'\npassword = 'y'",
            "wait_replicas = 1\nwait_timeout = '500ms'",
            "tls.ca = 'a'\ntls.certificate = 'b'\ntls.key = 'c'\nurl = 'rediss://a'",
        ] {
            let settings = read(text).settings(Path::new(""));
            assert!(settings.is_ok(), "{text}: {:?}", settings.unwrap_err());
        }
    }

    #[test]
    fn contradictions_name_their_key() {
        for (text, key) in [
            ("url = 'redis://a'\nurls = ['redis://b']", "urls"),
            ("urls = ['redis://b']", "urls"),
            ("topology = 'cluster'", "urls"),
            ("topology = 'cluster'\nurl = 'redis://a/3'", "url"),
            ("topology = 'cluster'\nurls = ['redis://a/3']", "urls"),
            (
                "topology = 'sentinel'\nurls = ['redis://a']",
                "sentinel_master",
            ),
            ("sentinel_master = 'queue'", "sentinel_master"),
            ("sentinel_password = 'x'", "sentinel_password"),
            ("password = 'x'\npassword_file = 'y'", "password_file"),
            ("password_file = 'missing'", "password_file"),
            ("url = 'redis://:x@a'\npassword = 'y'", "password"),
            ("url = 'redis://queue@a'", "username"),
            ("username = 'queue'", "username"),
            ("tls.ca = 'a'", "tls"),
            ("url = 'rediss://a'\ntls.key = 'a'", "tls"),
            ("wait_replicas = 1\nwait_timeout = '0s'", "wait_timeout"),
            ("shards = 0", "shards"),
        ] {
            assert_eq!(refused(text).key, key, "{text}");
        }
        assert!(toml("topology = 'ring'").is_err());
        assert!(toml("sentinel = 'a'").is_err());
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file_and_is_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
        let redis = read("username = 'queue'\npassword_file = 'password'");
        let settings = redis.settings(folder.path()).unwrap();
        let password = settings.password.as_ref().unwrap();
        assert_eq!(password.expose_secret(), "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        let inline = read("url = 'redis://:hunter2@a'");
        assert!(!format!("{inline:?}").contains("hunter2"));
        std::fs::write(folder.path().join("password"), "\n").unwrap();
        assert_eq!(
            redis.settings(folder.path()).unwrap_err().key,
            "password_file"
        );
    }
}
