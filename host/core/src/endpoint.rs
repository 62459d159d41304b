//! Endpoints: a tenant's receivers, and the rules about where a delivery may go.

use std::fmt;

use http::HeaderName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::event::{Event, EventType};
use crate::headers::{self, SafeHeaders};
use crate::ids::{EndpointId, OrderingKey, PluginName, SecretName, TenantId};
use crate::sequence::{EndpointOrdering, Sequence};
use crate::signing;

/// What the operator allows of endpoint URLs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Accept `http` besides `https`. For receivers on a closed network, and for demos.
    pub allow_insecure_http: bool,
}

/// An acceptable receiver URL: absolute, with a host, without userinfo, fragment or control
/// characters. Printed without its query, which may hold a token.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointUrl(Url);

impl EndpointUrl {
    /// The longest accepted URL, in bytes.
    pub const MAX_LEN: usize = 2048;

    /// Checks everything about a URL but its scheme's place in a policy: see [`Self::permitted`].
    pub fn new(text: &str) -> Result<Self> {
        let refused = |expected| Err(Error::endpoint_field("url", expected));
        let text = text.trim_matches(' ');
        if text.len() > Self::MAX_LEN {
            return refused("expected at most 2048 bytes");
        }
        // The URL standard's parser drops tabs and line breaks silently, so they are looked for here.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refused("expected no control characters or white space");
        }
        let Ok(url) = Url::parse(text) else {
            return refused("expected an absolute URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refused("expected the scheme https");
        }
        // The parser repairs `https:host` and `https:///host`; neither was written as an absolute URL.
        if authority(text).is_empty() || url.host_str().is_none_or(str::is_empty) {
            return refused("expected an absolute URL with a host");
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return refused("expected no user name or password");
        }
        if url.fragment().is_some() {
            return refused("expected no fragment");
        }
        Ok(Self(url))
    }

    /// Refuses plain `http` unless the policy allows it.
    pub fn permitted(&self, policy: EndpointPolicy) -> Result<()> {
        if self.0.scheme() == "https" || policy.allow_insecure_http {
            Ok(())
        } else {
            Err(Error::endpoint_field(
                "url",
                "expected https, for insecure http is not allowed here",
            ))
        }
    }

    /// The URL itself, query included: for the request only, not for logs.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The host part.
    pub fn host(&self) -> Host<&str> {
        self.0
            .host()
            .expect("the constructor refuses a URL without a host")
    }
}

fn authority(text: &str) -> &str {
    let after_scheme = text.split_once(':').map_or("", |(_, rest)| rest);
    let rest = after_scheme.strip_prefix("//").unwrap_or_default();
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..url::Position::AfterPath];
        f.write_str(shown)?;
        if self.0.query().is_some() {
            f.write_str("?…")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<EndpointUrl> for String {
    fn from(url: EndpointUrl) -> Self {
        url.0.into()
    }
}

/// What an endpoint subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subscription {
    /// `*`: every type of the catalog.
    All,
    /// One type.
    Type(EventType),
}

impl Subscription {
    /// Reads a type name or `*`; anything else is an `invalid webhook event`.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        match text.as_ref().trim() {
            "*" => Ok(Self::All),
            name => EventType::new(name).map(Self::Type),
        }
    }

    /// Whether an event of this type is wanted.
    pub fn covers(&self, event_type: &EventType) -> bool {
        match self {
            Self::All => true,
            Self::Type(subscribed) => subscribed == event_type,
        }
    }
}

impl TryFrom<String> for Subscription {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<Subscription> for String {
    fn from(subscription: Subscription) -> Self {
        match subscription {
            Subscription::All => "*".to_owned(),
            Subscription::Type(event_type) => event_type.into(),
        }
    }
}

/// How a delivery is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignatureProfile {
    /// Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    #[default]
    Standard,
    /// The contract's own profile: a JSON envelope as body, and three headers whose names can be
    /// chosen.
    Sha256 {
        /// Carries `sha256=<hex>`; `x-signature` by default.
        signature_header: HeaderName,
        /// Carries the event id; `x-webhook-event-id` by default.
        event_id_header: HeaderName,
        /// Carries the attempt's time in RFC 3339; `x-webhook-timestamp` by default.
        timestamp_header: HeaderName,
    },
    /// A plugin signs: the host sets no signature and no id of its own, and sends nothing that the plugin
    /// did not sign.
    Plugin {
        /// The plugin's name within the tenant.
        signer: PluginName,
    },
}

impl SignatureProfile {
    /// The `sha256` profile with the contract's header names.
    pub fn sha256() -> Self {
        Self::Sha256 {
            signature_header: HeaderName::from_static("x-signature"),
            event_id_header: HeaderName::from_static("x-webhook-event-id"),
            timestamp_header: HeaderName::from_static("x-webhook-timestamp"),
        }
    }

    /// Refuses header names that overwrite each other or what the host sets itself.
    pub fn validate(&self) -> Result<()> {
        let Self::Sha256 {
            signature_header,
            event_id_header,
            timestamp_header,
        } = self
        else {
            return Ok(());
        };
        let names = [signature_header, event_id_header, timestamp_header];
        let twice = (1..names.len()).any(|index| names[..index].contains(&names[index]));
        if twice || names.into_iter().any(headers::is_the_hosts) {
            return Err(Error::endpoint_field(
                "profile",
                "expected three different header names, none of which the host sets itself",
            ));
        }
        Ok(())
    }

    /// Whether this profile writes the header itself.
    pub fn uses(&self, name: &HeaderName) -> bool {
        match self {
            Self::Standard => [
                signing::ID_HEADER,
                signing::TIMESTAMP_HEADER,
                signing::SIGNATURE_HEADER,
            ]
            .contains(&name.as_str()),
            Self::Sha256 {
                signature_header,
                event_id_header,
                timestamp_header,
            } => [signature_header, event_id_header, timestamp_header].contains(&name),
            // Which ones only the plugin knows; they are laid over all others.
            Self::Plugin { .. } => false,
        }
    }
}

/// What the body of a request is that the `standard` profile or a plugin signs. The `sha256` profile has an
/// envelope of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyForm {
    /// The payload as pushed, or as the transform plugin made it.
    #[default]
    Payload,
    /// `{"type","timestamp","data"}`, the recommendation of Standard Webhooks.
    Envelope,
}

/// A tenant's receiver. It names its secrets and never holds them, so it can be logged and
/// serialised without care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique within the tenant.
    pub id: EndpointId,
    /// Whose receiver it is.
    pub tenant_id: TenantId,
    /// Where requests go.
    pub url: EndpointUrl,
    /// Names of the secrets that sign: one, or several during a rotation, each giving a signature.
    pub secrets: Vec<SecretName>,
    /// What it subscribes to; at least one.
    pub events: Vec<Subscription>,
    /// Headers added to every request.
    pub headers: SafeHeaders,
    /// A disabled endpoint matches no event.
    pub disabled: bool,
    /// The order that it asks for, if any.
    pub ordering: Option<EndpointOrdering>,
    /// How requests are signed.
    pub profile: SignatureProfile,
    /// What a standard request's body is.
    pub body: BodyForm,
    /// When it was made known.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Endpoint {
    /// Refuses an endpoint that could not be delivered to.
    pub fn validate(&self, policy: EndpointPolicy) -> Result<()> {
        if self.secrets.is_empty() {
            return Err(Error::endpoint_field(
                "secrets",
                "expected at least one signing secret",
            ));
        }
        if self.events.is_empty() {
            return Err(Error::endpoint_field(
                "events",
                "expected at least one event type or *",
            ));
        }
        self.url.permitted(policy)?;
        self.profile.validate()?;
        self.headers.check_profile(&self.profile)
    }

    /// Whether this endpoint wants the event: enabled, of the same tenant, and subscribed.
    pub fn matches(&self, event: &Event) -> bool {
        !self.disabled
            && self.tenant_id == event.tenant_id
            && self
                .events
                .iter()
                .any(|subscription| subscription.covers(&event.event_type))
    }
}

/// An endpoint that a resolver plugin made up for one event. It is kept with the delivery, for no
/// registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedEndpoint {
    /// Where requests go.
    pub url: EndpointUrl,
    /// Name of a secret that the tenant owns.
    pub secret: SecretName,
    /// Headers added to every request.
    pub headers: SafeHeaders,
    /// Deliveries to it with one key arrive in order, see [`crate::sequence`]. One that is no
    /// [`OrderingKey`] asks for nothing.
    pub ordering_key: Option<String>,
}

impl ResolvedEndpoint {
    /// An id that is the same whenever the plugin answers the same: `whep_` and the first 16 bytes,
    /// in hex, of SHA-256 over URL, secret name and headers joined by zero bytes.
    pub fn id(&self) -> EndpointId {
        let mut hash = Sha256::new();
        hash.update(self.url.as_url().as_str());
        hash.update([0]);
        hash.update(self.secret.as_str());
        for (name, value) in self.headers.iter() {
            hash.update([0]);
            hash.update(name.as_str());
            hash.update([0]);
            hash.update(value.as_bytes());
        }
        EndpointId::new(format!("whep_{}", hex::encode(&hash.finalize()[..16])))
            .expect("a prefix and 32 hex digits are a valid endpoint id")
    }

    /// The sequence of its delivery, if it is to be in one.
    pub fn sequence(&self) -> Option<Sequence> {
        let key = self.ordering_key.as_deref()?;
        OrderingKey::new(key).ok().map(Sequence::of)
    }

    /// The endpoint as the rest of the host sees it, subscribed to the event's type only.
    pub fn endpoint(&self, event: &Event) -> Endpoint {
        Endpoint {
            id: self.id(),
            tenant_id: event.tenant_id.clone(),
            url: self.url.clone(),
            secrets: vec![self.secret.clone()],
            events: vec![Subscription::Type(event.event_type.clone())],
            headers: self.headers.clone(),
            disabled: false,
            // That of its deliveries is their own.
            ordering: None,
            profile: SignatureProfile::Standard,
            body: BodyForm::Payload,
            created_at: event.occurred_at,
            updated_at: event.occurred_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_not_absolute_and_plain_are_refused() {
        for bad in [
            "",
            "/hook",
            "example.com",
            "//example.com/x",
            "https://",
            "https:///x",
            "https:example.com",
            "ftp://example.com",
            "https://user@example.com/",
            "https://user:pw@example.com/",
            "https://@example.com/",
            "https://example.com/#frag",
            "https://exa\nmple.com/",
            "https://example.com/a\tb",
            "https://example.com/a b",
            "javascript:alert(1)",
            "https://[::1",
        ] {
            let error = EndpointUrl::new(bad).unwrap_err();
            assert!(
                matches!(error, Error::InvalidEndpoint(_)),
                "{bad:?}: {error}"
            );
        }
    }

    #[test]
    fn http_needs_the_policy() {
        let url = EndpointUrl::new("http://example.com/hook").unwrap();
        assert!(url.permitted(EndpointPolicy::default()).is_err());
        url.permitted(EndpointPolicy {
            allow_insecure_http: true,
        })
        .unwrap();
    }

    #[test]
    fn a_printed_url_hides_its_query() {
        let url = EndpointUrl::new("https://example.com/hook?token=hunter2").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "https://example.com/hook?… \"https://example.com/hook?…\""
        );
    }

    #[test]
    fn a_profile_whose_headers_collide_is_refused() {
        let named = |signature: &'static str| SignatureProfile::Sha256 {
            signature_header: HeaderName::from_static(signature),
            event_id_header: HeaderName::from_static("x-id"),
            timestamp_header: HeaderName::from_static("x-time"),
        };
        named("x-sig").validate().unwrap();
        SignatureProfile::sha256().validate().unwrap();
        for bad in ["x-id", "content-type", "host", "webhook-id"] {
            assert!(named(bad).validate().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn subscriptions_take_types_and_the_wildcard() {
        assert_eq!(Subscription::new(" * ").unwrap(), Subscription::All);
        assert!(matches!(
            Subscription::new("a.*").unwrap_err(),
            Error::InvalidEvent(_)
        ));
        let paid = EventType::new("invoice.paid").unwrap();
        assert!(Subscription::new("invoice.paid").unwrap().covers(&paid));
        assert!(!Subscription::new("invoice").unwrap().covers(&paid));
    }

    #[test]
    fn a_resolved_endpoint_has_a_stable_id() {
        let made = |url: &str| ResolvedEndpoint {
            url: EndpointUrl::new(url).unwrap(),
            secret: SecretName::new("main").unwrap(),
            headers: SafeHeaders::default(),
            ordering_key: None,
        };
        assert_eq!(
            made("https://a.example/").id(),
            made("https://a.example/").id()
        );
        assert_ne!(
            made("https://a.example/").id(),
            made("https://b.example/").id()
        );
    }
}
