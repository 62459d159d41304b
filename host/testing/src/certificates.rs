//! Certificates for a TLS server on loopback.

use std::io;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority of its own, and certificates by it for a server on loopback and for a client, as
/// PEM files in a folder that is removed when this is dropped.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn make() -> io::Result<Self> {
        let certificates = Self {
            folder: TempDir::with_prefix("wasmhook-certificates-")?,
        };
        certificates.write().map_err(io::Error::other)?;
        Ok(certificates)
    }

    fn write(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let params = |name: &str, hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            let mut params = CertificateParams::new(hosts)?;
            // A certificate with its issuer's name would be taken for one that signed itself.
            params.distinguished_name.push(DnType::CommonName, name);
            Ok::<_, rcgen::Error>(params)
        };
        let mut authority = params("wasmhook tests", &[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = authority.self_signed(&key)?;
        let issuer = Issuer::new(authority, key);
        std::fs::write(self.ca(), root.pem())?;
        for (name, hosts) in [
            ("server", ["localhost", "127.0.0.1"].as_slice()),
            ("client", ["client"].as_slice()),
        ] {
            let key = KeyPair::generate()?;
            let certificate = params(name, hosts)?.signed_by(&key, &issuer)?;
            std::fs::write(self.file(name), certificate.pem())?;
            std::fs::write(self.file(&format!("{name}-key")), key.serialize_pem())?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca")
    }

    /// A client's certificate and its private key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client"), self.file("client-key"))
    }

    /// The words of a Redis server's command line by which it shows the server's certificate;
    /// `clients` is whether it asks clients for theirs.
    pub fn server_words(&self, clients: bool) -> Vec<String> {
        let path = |file: PathBuf| file.to_string_lossy().into_owned();
        let pairs = [
            ("--tls-cert-file", path(self.file("server"))),
            ("--tls-key-file", path(self.file("server-key"))),
            ("--tls-ca-cert-file", path(self.ca())),
            (
                "--tls-auth-clients",
                if clients { "yes" } else { "no" }.to_owned(),
            ),
        ];
        pairs
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }
}
