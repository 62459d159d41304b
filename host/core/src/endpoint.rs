//! Endpoints: a tenant's receivers, and which events they want.

mod profile;
mod url;

pub use self::profile::{BodyForm, SignatureProfile};
pub use self::url::{EndpointPolicy, EndpointUrl};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::event::{Event, EventType};
use crate::headers::SafeHeaders;
use crate::ids::{EndpointId, OrderingKey, SecretName, TenantId};
use crate::sequence::{EndpointOrdering, Sequence};

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
