//! TLS settings: rustls with ring, and the machine's own trust.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::ClientError;

/// Verifies receivers as the machine does (`SSL_CERT_FILE` and the system's store on Linux). A
/// machine without any certificates, such as a bare container, gets Mozilla's list instead.
pub(crate) fn config() -> Result<ClientConfig, ClientError> {
    // The provider is passed along rather than installed: a library does not set the process's.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?;
    let mut config = match Verifier::new(provider) {
        Ok(verifier) => {
            let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
            versions
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "the machine has no usable root certificates, so the built-in list of Mozilla is used"
            );
            let roots = RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            versions.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
