//! Where the servers are: reading addresses, logins and certificates, and opening clients by them.

use std::fmt;
use std::path::Path;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};

use crate::redis::config::{InvalidSetting, RedisConfig, Tls, Topology};

/// Addresses as configured, read and found to fit together.
pub(in crate::redis) struct Addresses {
    /// Of servers, or of Sentinels.
    entries: Vec<ConnectionInfo>,
    /// How to log in to a server.
    server: RedisConnectionInfo,
    secure: bool,
    tls: Tls,
}

impl Addresses {
    /// Reads the addresses of these settings.
    pub(in crate::redis) fn of(config: &RedisConfig) -> Result<Self, InvalidSetting> {
        let (setting, urls) = match &config.topology {
            Topology::Single(url) => ("url", std::slice::from_ref(url)),
            Topology::Cluster(urls) => ("urls", urls.as_slice()),
            Topology::Sentinel(sentinels) => ("urls", sentinels.urls.as_slice()),
        };
        let mut entries = urls
            .iter()
            .map(|url| parse(setting, url))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = entries.first() else {
            return Err(InvalidSetting::new(
                setting,
                "expected at least one address",
            ));
        };
        let secure = is_secure(first.addr());
        let login = first.redis_settings().clone();
        if entries.iter().any(|entry| {
            is_secure(entry.addr()) != secure || !same_login(entry.redis_settings(), &login)
        }) {
            return Err(InvalidSetting::new(
                setting,
                "expected the same scheme, user, password and database in every address",
            ));
        }
        if !secure && config.tls != Tls::default() {
            return Err(InvalidSetting::new(
                "tls",
                "expected an address that begins with rediss://, for only those use TLS",
            ));
        }
        let server = match &config.topology {
            Topology::Single(_) => log_in(
                login,
                "",
                config.username.as_deref(),
                config.password.as_ref(),
            )?,
            Topology::Cluster(_) => {
                refuse_sockets(setting, &entries)?;
                if login.db() != 0 {
                    return Err(InvalidSetting::new(
                        setting,
                        "expected no database number, for a cluster has only database 0",
                    ));
                }
                log_in(
                    login,
                    "",
                    config.username.as_deref(),
                    config.password.as_ref(),
                )?
            }
            Topology::Sentinel(sentinels) => {
                refuse_sockets(setting, &entries)?;
                if sentinels.master.is_empty() {
                    return Err(InvalidSetting::new(
                        "sentinel_master",
                        "expected the name that the Sentinels know the master by",
                    ));
                }
                let servers = RedisConnectionInfo::default().set_db(login.db());
                let sentinel = log_in(
                    login.set_db(0),
                    "sentinel_",
                    sentinels.username.as_deref(),
                    sentinels.password.as_ref(),
                )?;
                for entry in &mut entries {
                    *entry = entry.clone().set_redis_settings(sentinel.clone());
                }
                log_in(
                    servers,
                    "",
                    config.username.as_deref(),
                    config.password.as_ref(),
                )?
            }
        };
        if !matches!(config.topology, Topology::Sentinel(_)) {
            for entry in &mut entries {
                *entry = entry.clone().set_redis_settings(server.clone());
            }
        }
        Ok(Self {
            entries,
            server,
            secure,
            tls: config.tls.clone(),
        })
    }

    /// Reads the certificates.
    pub(super) fn open(self) -> Result<Servers, InvalidSetting> {
        let certificates = if self.secure {
            // Harmless when the host has chosen already; without any, rustls would panic.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Some(read_certificates(&self.tls)?)
        } else {
            None
        };
        Ok(Servers {
            addresses: self,
            certificates,
        })
    }
}

/// Host and port of each, without credentials.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.entries.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{}", entry.addr())?;
        }
        Ok(())
    }
}

/// Opens clients.
pub(super) struct Servers {
    addresses: Addresses,
    certificates: Option<TlsCertificates>,
}

impl Servers {
    /// Clients of the servers, or Sentinels, that were configured.
    pub(super) fn clients(&self) -> Result<Vec<Client>, RedisError> {
        let entries = &self.addresses.entries;
        entries
            .iter()
            .map(|entry| self.client(entry.clone()))
            .collect()
    }

    /// A client of the server with this name or address.
    pub(super) fn server(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let host = host.to_owned();
        let addr = if self.addresses.secure {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = addr.into_connection_info()?;
        self.client(info.set_redis_settings(self.addresses.server.clone()))
    }

    /// The beginning of a client of the whole cluster.
    pub(super) fn cluster(&self) -> ClusterClientBuilder {
        let builder = ClusterClient::builder(self.addresses.entries.iter().cloned());
        match &self.certificates {
            Some(certificates) => builder.certs(certificates.clone()),
            None => builder,
        }
    }

    /// The host of the first address: where a cluster says "the same host".
    pub(super) fn first_host(&self) -> &str {
        match self.addresses.entries.first().map(ConnectionInfo::addr) {
            Some(ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => host,
            _ => "127.0.0.1",
        }
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addresses.fmt(f)
    }
}

/// The parser's error could quote the address, password included, so it is not passed on.
fn parse(setting: &'static str, url: &SecretString) -> Result<ConnectionInfo, InvalidSetting> {
    let refuse = || {
        InvalidSetting::new(
            setting,
            "expected redis://[user:password@]host[:port][/database], the same with rediss:// for TLS, or unix:///path",
        )
    };
    let info = url
        .expose_secret()
        .into_connection_info()
        .map_err(|_| refuse())?;
    if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
        return Err(InvalidSetting::new(
            setting,
            "#insecure is not possible; name the certificate to trust in tls.ca",
        ));
    }
    // Answers are read in the form of this protocol.
    let login = info.redis_settings().clone();
    Ok(info.set_redis_settings(login.set_protocol(ProtocolVersion::RESP2)))
}

fn is_secure(addr: &ConnectionAddr) -> bool {
    matches!(addr, ConnectionAddr::TcpTls { .. })
}

fn same_login(a: &RedisConnectionInfo, b: &RedisConnectionInfo) -> bool {
    (a.username(), a.password(), a.db()) == (b.username(), b.password(), b.db())
}

fn refuse_sockets(setting: &'static str, entries: &[ConnectionInfo]) -> Result<(), InvalidSetting> {
    let socket = |entry: &ConnectionInfo| matches!(entry.addr(), ConnectionAddr::Unix(_));
    if entries.iter().any(socket) {
        return Err(InvalidSetting::new(
            setting,
            "expected hosts, for only a single server can be reached by a UNIX socket",
        ));
    }
    Ok(())
}

/// Adds user and password to what the address says; `whose` begins the names of their settings.
fn log_in(
    mut login: RedisConnectionInfo,
    whose: &'static str,
    username: Option<&str>,
    password: Option<&SecretString>,
) -> Result<RedisConnectionInfo, InvalidSetting> {
    let (user_setting, password_setting) = match whose {
        "" => ("username", "password"),
        _ => ("sentinel_username", "sentinel_password"),
    };
    if let Some(username) = username {
        if login.username().is_some() {
            return Err(InvalidSetting::new(
                user_setting,
                "expected nothing, for the address names a user already",
            ));
        }
        login = login.set_username(username);
    }
    if let Some(password) = password {
        if login.password().is_some() {
            return Err(InvalidSetting::new(
                password_setting,
                "expected nothing, for the address holds a password already",
            ));
        }
        login = login.set_password(password.expose_secret());
    }
    if login.username().is_some() && login.password().is_none() {
        return Err(InvalidSetting::new(
            user_setting,
            "expected a password as well; without one the user would not be logged in",
        ));
    }
    Ok(login)
}

fn read_certificates(tls: &Tls) -> Result<TlsCertificates, InvalidSetting> {
    let root_cert = match &tls.ca {
        Some(path) => Some(read_chain("tls.ca", path)?),
        None => None,
    };
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let client_cert = read_chain("tls.certificate", certificate)?;
            let client_key = read("tls.key", key)?;
            if PrivateKeyDer::from_pem_slice(&client_key).is_err() {
                return Err(InvalidSetting::new(
                    "tls.key",
                    format!("{} holds no private key in PEM", key.display()),
                ));
            }
            Some(ClientTlsConfig {
                client_cert,
                client_key,
            })
        }
        _ => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

fn read_chain(setting: &'static str, path: &Path) -> Result<Vec<u8>, InvalidSetting> {
    let pem = read(setting, path)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem).peekable();
    if certificates.peek().is_none() || certificates.any(|certificate| certificate.is_err()) {
        return Err(InvalidSetting::new(
            setting,
            format!("{} holds no certificates in PEM", path.display()),
        ));
    }
    Ok(pem)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, InvalidSetting> {
    std::fs::read(path).map_err(|error| {
        InvalidSetting::new(setting, format!("cannot read {}: {error}", path.display()))
    })
}
