//! Where events go while a plugin is tried out, and with which keys those requests are signed.

use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use wasmhook_core::endpoint::BodyForm;
use wasmhook_core::{
    Endpoint, EndpointId, EndpointUrl, Event, PluginName, SafeHeaders, SignatureProfile,
    SigningSecret, Subscription, TenantId,
};
use wasmhook_tenants::Tenants;

use super::keys::Keys;
use crate::args::Receivers;
use crate::config::Config;
use crate::host;

/// An endpoint named on the command line: `ID=URL`, or a URL for one called `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    id: EndpointId,
    url: EndpointUrl,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An id has no colon, and what precedes the first `=` of a URL does.
        let (id, url) = match text.split_once('=') {
            Some((id, url)) if !id.contains(':') => (id, url),
            _ => ("main", text),
        };
        Ok(Self {
            id: EndpointId::new(id).map_err(|error| error.to_string())?,
            url: EndpointUrl::new(url).map_err(|error| error.to_string())?,
        })
    }
}

/// Where events go.
pub(super) struct Endpoints {
    /// Those of the configuration's tenants, unless others are named.
    tenants: Option<Tenants>,
    /// Those named, or what stands for the endpoints of who has none.
    named: Vec<Named>,
    /// The plugin that signs for those that are named: the one that is tried out.
    signer: Option<PluginName>,
    /// What signs in place of the endpoints' own secrets.
    given: Option<Keys>,
    /// What signs for endpoints that have none.
    made_up: Keys,
}

/// An endpoint, and the secrets that it names.
pub(super) struct Receiver {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) secrets: Result<Vec<Arc<SigningSecret>>, wasmhook_core::Error>,
    /// Whether they are of this run alone, so that nobody can verify what they sign.
    pub(super) is_made_up: bool,
}

impl Endpoints {
    /// Those named, otherwise those of the configuration's tenants, otherwise an example.
    pub(super) fn new(
        config: &Config,
        receivers: &Receivers,
        signer: Option<PluginName>,
    ) -> anyhow::Result<Self> {
        let mut named = receivers.endpoints.clone();
        let has_tenants = config.file.is_some() && config.path(&config.tenants.folder).is_dir();
        let tenants = if named.is_empty() && has_tenants {
            Some(host::tenants(config)?)
        } else {
            None
        };
        if named.is_empty() {
            named.extend("https://example.com/hooks".parse());
        }
        Ok(Self {
            tenants,
            named,
            signer,
            given: Keys::read(&receivers.secret_files)?,
            made_up: Keys::made_up()?,
        })
    }

    /// What an event goes to: of the tenant's endpoints those that subscribe, and an example where none does.
    pub(super) fn of(&self, event: &Event) -> Vec<Receiver> {
        let subscribed = self.tenants.iter().flat_map(|tenants| {
            let all = tenants.endpoints(&event.tenant_id);
            let of_event = all.iter().filter(|endpoint| endpoint.matches(event));
            let with_keys = of_event.map(|endpoint| self.with_secrets(tenants, endpoint));
            with_keys.collect::<Vec<_>>()
        });
        let subscribed: Vec<_> = subscribed.collect();
        if !subscribed.is_empty() {
            return subscribed;
        }
        let named = self.named.iter();
        named
            .map(|named| self.made(named, &event.tenant_id))
            .collect()
    }

    fn with_secrets(&self, tenants: &Tenants, endpoint: &Arc<Endpoint>) -> Receiver {
        match &self.given {
            None => Receiver {
                endpoint: Arc::clone(endpoint),
                secrets: tenants.secrets_for(endpoint),
                is_made_up: false,
            },
            Some(keys) => Receiver {
                endpoint: Arc::new(Endpoint {
                    secrets: keys.names.clone(),
                    ..Endpoint::clone(endpoint)
                }),
                secrets: Ok(keys.secrets.clone()),
                is_made_up: false,
            },
        }
    }

    fn made(&self, named: &Named, tenant: &TenantId) -> Receiver {
        let keys = self.given.as_ref().unwrap_or(&self.made_up);
        let signer = self.signer.clone();
        Receiver {
            endpoint: Arc::new(Endpoint {
                id: named.id.clone(),
                tenant_id: tenant.clone(),
                url: named.url.clone(),
                secrets: keys.names.clone(),
                events: vec![Subscription::All],
                headers: SafeHeaders::default(),
                disabled: false,
                ordering: None,
                profile: signer.map_or_else(SignatureProfile::default, |signer| {
                    SignatureProfile::Plugin { signer }
                }),
                body: BodyForm::default(),
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
            }),
            secrets: Ok(keys.secrets.clone()),
            is_made_up: self.given.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_with_its_id_or_is_main() {
        let named = |text: &str| {
            text.parse::<Named>()
                .map(|named| (named.id.to_string(), named.url.as_url().to_string()))
        };
        assert_eq!(
            named("eu=https://example.com/h").unwrap(),
            ("eu".to_owned(), "https://example.com/h".to_owned())
        );
        assert_eq!(
            named("https://example.com/h?a=b").unwrap(),
            ("main".to_owned(), "https://example.com/h?a=b".to_owned())
        );
        assert!(named("eu=nowhere").is_err());
    }
}
