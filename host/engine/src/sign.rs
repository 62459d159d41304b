//! Requests that a plugin signs.

use std::sync::Arc;

use jiff::Timestamp;
use wasmhook_core::keyring::{self, Keyring};
use wasmhook_core::{
    DeliveryId, Endpoint, Event, OutgoingRequest, PluginName, PluginUse, SignatureHeaders,
    SigningSecret, UnsignedRequest,
};
use wasmhook_runtime::{
    CallResult, FailurePolicy, Fault, Hash, KeyError, KeyForm, Plugin, Signer, TenantPlugins,
    UnsignedView,
};

use crate::resolve::{endpoint_view, micros, retryable, verdict};

/// Why a request was not signed, and so not sent.
#[derive(Debug)]
pub(crate) struct Unsigned {
    /// In words free of payload and secret.
    pub(crate) message: String,
    /// Whether another attempt may be signed.
    pub(crate) retryable: bool,
    /// Whether the plugin was not asked, because it is still being loaded or too many calls were running.
    pub(crate) held: bool,
}

/// What is signed, for whom.
pub struct Signing<'a> {
    /// The delivery's id.
    pub delivery: &'a DeliveryId,
    /// The event.
    pub event: &'a Event,
    /// The endpoint, which names the secrets.
    pub endpoint: &'a Endpoint,
    /// The secrets that it names, in its order.
    pub secrets: &'a [Arc<SigningSecret>],
    /// The time of the attempt.
    pub at: Timestamp,
}

impl Signing<'_> {
    /// Has the endpoint's signer sign the request. Nothing goes out that it did not sign, so its failure
    /// policy can end the delivery sooner, and cannot let the request pass.
    pub(crate) async fn by(
        &self,
        name: &PluginName,
        plugins: &TenantPlugins,
        request: UnsignedRequest,
        used: &mut Vec<PluginUse>,
    ) -> Result<OutgoingRequest, Unsigned> {
        let mut signers = plugins.signers.iter();
        let signer = signers.find(|plugin| plugin.name() == name.as_str());
        let event = self.event.id.as_str();
        // One that only its canary has is none for the other events. A canary without it is asked, for that
        // ends it: with it no delivery to this endpoint goes out.
        let version = signer
            .map(|signer| (signer, signer.version_for(event)))
            .filter(|(signer, version)| version.exports().sign || signer.exports().sign);
        let Some((_, plugin)) = version else {
            return Err(missing(name, plugins));
        };
        let called = self.ask(&plugin, &request).await;
        let cpu = called
            .as_ref()
            .map_or_else(|error| error.cpu, |call| call.cpu);
        used.push(PluginUse {
            name: plugin.name().to_owned(),
            digest: plugin.digest().to_string(),
            cpu_us: micros(cpu),
            verdict: Some(
                called
                    .as_ref()
                    .map_or_else(|error| verdict(&error.fault), |_| "sign")
                    .to_owned(),
            ),
        });
        let may_retry = plugin.policy() != FailurePolicy::DeadLetter;
        let signature = match called {
            Ok(call) => call.value,
            Err(error) => {
                let held = matches!(error.fault, Fault::Exhausted);
                return Err(Unsigned {
                    retryable: held || (may_retry && retryable(&error.fault)),
                    held,
                    message: error.to_string(),
                });
            }
        };
        match SignatureHeaders::new(signature) {
            Ok(signature) => Ok(request.signed_by_plugin(&signature)),
            Err(error) => {
                plugin.refuse_answer(event, &error.to_string());
                Err(Unsigned {
                    message: format!("plugin {name}: its signature was refused: {error}"),
                    retryable: may_retry,
                    held: false,
                })
            }
        }
    }
}

impl Signing<'_> {
    /// Asks a plugin for the headers that sign the request, with the keys that the endpoint names. They are
    /// unchecked: see [`SignatureHeaders`].
    pub async fn ask(
        &self,
        plugin: &Plugin,
        request: &UnsignedRequest,
    ) -> CallResult<Vec<(String, String)>> {
        let headers: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let view = UnsignedView {
            delivery_id: self.delivery.as_str(),
            event_id: self.event.id.as_str(),
            event_type: self.event.event_type.as_str(),
            timestamp: u64::try_from(self.at.as_second()).unwrap_or_default(),
            headers: &headers,
            body: request.body(),
        };
        let keys: Arc<dyn Signer> = Arc::new(Keys(Keyring::new(self.endpoint, self.secrets)));
        plugin
            .sign(&endpoint_view(self.endpoint), &view, &keys)
            .await
    }
}

/// There is no such signer, or none that serves yet.
fn missing(name: &PluginName, plugins: &TenantPlugins) -> Unsigned {
    let unready = plugins
        .unready
        .iter()
        .find(|plugin| *plugin.name == *name.as_str());
    match unready {
        Some(plugin) => Unsigned {
            message: format!("plugin {name} does not serve: {}", plugin.reason),
            retryable: plugin.policy() != FailurePolicy::DeadLetter,
            held: plugin.loading,
        },
        None => Unsigned {
            message: format!("the endpoint's signer {name} is no plugin of the tenant that signs"),
            retryable: true,
            held: false,
        },
    }
}

/// An endpoint's keys as the runtime hands them to a guest: by name.
struct Keys(Keyring);

fn told(error: keyring::KeyError) -> KeyError {
    match error {
        keyring::KeyError::Unknown => KeyError::Unknown,
        keyring::KeyError::WrongKind => KeyError::WrongKind,
    }
}

impl Signer for Keys {
    fn keys(&self) -> Vec<String> {
        self.0.names().map(ToString::to_string).collect()
    }

    fn hmac(&self, key: &str, form: KeyForm, hash: Hash, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        let form = match form {
            KeyForm::Text => keyring::KeyForm::Text,
            KeyForm::Decoded => keyring::KeyForm::Decoded,
        };
        let hash = match hash {
            Hash::Sha1 => keyring::Hash::Sha1,
            Hash::Sha256 => keyring::Hash::Sha256,
            Hash::Sha512 => keyring::Hash::Sha512,
        };
        self.0.hmac(key, form, hash, data).map_err(told)
    }

    fn ed25519(&self, key: &str, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.ed25519(key, data).map_err(told)
    }
}
