//! The request that delivers an event: body, headers, signature.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::endpoint::{BodyForm, Endpoint, EndpointUrl, SignatureProfile};
use crate::error::{Context, Error, Result};
use crate::event::Event;
use crate::headers::{SafeHeaders, SignatureHeaders};
use crate::ids::DeliveryId;
use crate::secret::SigningSecret;
use crate::signing;

/// What a transform plugin made of an event: the content to send instead of the payload.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The body, in place of the payload.
    pub body: Bytes,
    /// Its type; `application/json` when `None`.
    pub content_type: Option<HeaderValue>,
    /// Headers laid over the endpoint's own.
    pub headers: SafeHeaders,
}

impl Content {
    /// The event's payload as it was pushed.
    pub fn original(event: &Event) -> Self {
        Self {
            body: event.payload.bytes().clone(),
            ..Self::default()
        }
    }
}

/// A signed POST, ready to be sent by any HTTP client.
#[derive(Clone)]
pub struct OutgoingRequest {
    /// Where to.
    pub url: EndpointUrl,
    /// All headers but those of the connection.
    pub headers: HeaderMap,
    /// Exactly what was signed.
    pub body: Bytes,
}

impl std::fmt::Debug for OutgoingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingRequest")
            .field("url", &self.url)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Builds signed requests.
#[derive(Debug, Clone)]
pub struct RequestBuilder {
    user_agent: HeaderValue,
}

impl Default for RequestBuilder {
    fn default() -> Self {
        Self {
            user_agent: HeaderValue::from_static(concat!("wasmhook/", env!("CARGO_PKG_VERSION"))),
        }
    }
}

impl RequestBuilder {
    /// Announces the host under another name.
    pub fn new(user_agent: &str) -> Result<Self> {
        let user_agent = HeaderValue::from_str(user_agent.trim()).map_err(|_| {
            Error::UnsafeHeader(Context::words("the user agent cannot be sent as a header"))
        })?;
        Ok(Self { user_agent })
    }

    /// Builds the request of one attempt, signed at `at` by every secret of the endpoint.
    ///
    /// # Errors
    /// `invalid webhook endpoint` for secrets of the wrong kind or none, and for an endpoint that a plugin
    /// signs for: see [`Self::prepare`]. `unsafe webhook header` for headers that the signature profile
    /// writes itself.
    pub fn build(
        &self,
        delivery: &DeliveryId,
        event: &Event,
        endpoint: &Endpoint,
        secrets: &[Arc<SigningSecret>],
        content: &Content,
        at: Timestamp,
    ) -> Result<OutgoingRequest> {
        self.prepare(event, endpoint, content)?.signed(
            delivery,
            event,
            &endpoint.profile,
            secrets,
            at,
        )
    }

    /// Builds the request without its signature, for a plugin to sign.
    ///
    /// # Errors
    /// `unsafe webhook header` for headers that the signature profile writes itself.
    pub fn prepare(
        &self,
        event: &Event,
        endpoint: &Endpoint,
        content: &Content,
    ) -> Result<UnsignedRequest> {
        content.headers.check_profile(&endpoint.profile)?;
        endpoint.headers.check_profile(&endpoint.profile)?;
        let body = body(event, endpoint, content)?;
        let extra = endpoint.headers.len() + content.headers.len();
        let mut headers = HeaderMap::with_capacity(extra + 5);
        for (name, value) in endpoint.headers.iter().chain(content.headers.iter()) {
            headers.insert(name.clone(), value.clone());
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, content.content_type.clone().unwrap_or(json));
        headers.insert(USER_AGENT, self.user_agent.clone());
        Ok(UnsignedRequest(OutgoingRequest {
            url: endpoint.url.clone(),
            headers,
            body,
        }))
    }
}

/// A POST that is complete but for its signature. It cannot be sent as it is.
#[derive(Debug, Clone)]
pub struct UnsignedRequest(OutgoingRequest);

impl UnsignedRequest {
    /// The headers so far.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// What is to be signed.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The request with the signature that a plugin made.
    pub fn signed_by_plugin(self, signature: &SignatureHeaders) -> OutgoingRequest {
        let mut request = self.0;
        for (name, value) in signature.iter() {
            request.headers.insert(name.clone(), value.clone());
        }
        request
    }

    /// The request with the host's own signature.
    fn signed(
        self,
        delivery: &DeliveryId,
        event: &Event,
        profile: &SignatureProfile,
        secrets: &[Arc<SigningSecret>],
        at: Timestamp,
    ) -> Result<OutgoingRequest> {
        let mut request = self.0;
        let headers = &mut request.headers;
        match profile {
            SignatureProfile::Standard => {
                let signature = signing::standard(
                    secrets.iter().map(AsRef::as_ref),
                    delivery.as_str(),
                    at,
                    &request.body,
                )?;
                headers.insert(
                    HeaderName::from_static(signing::ID_HEADER),
                    value(delivery.as_str())?,
                );
                headers.insert(
                    HeaderName::from_static(signing::TIMESTAMP_HEADER),
                    at.as_second().into(),
                );
                headers.insert(
                    HeaderName::from_static(signing::SIGNATURE_HEADER),
                    value(&signature)?,
                );
            }
            SignatureProfile::Sha256 {
                signature_header,
                event_id_header,
                timestamp_header,
            } => {
                // The contract's header holds one signature; during a rotation it is the first
                // secret's, so the operator lists the one in force first.
                let secret = secrets.first().ok_or_else(|| {
                    Error::endpoint_field("secrets", "expected at least one signing secret")
                })?;
                headers.insert(
                    signature_header.clone(),
                    value(&signing::sha256(secret, &request.body)?)?,
                );
                headers.insert(event_id_header.clone(), value(event.id.as_str())?);
                headers.insert(timestamp_header.clone(), value(&format!("{at:.0}"))?);
            }
            SignatureProfile::Plugin { .. } => {
                return Err(Error::endpoint_field(
                    "profile",
                    "expected a profile of the host's own, for no plugin signs here",
                ));
            }
        }
        Ok(request)
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| Error::UnsafeHeader(Context::words("an id cannot be sent as a header value")))
}

#[derive(Serialize)]
struct Sha256Envelope<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    payload: &'a RawValue,
}

#[derive(Serialize)]
struct StandardEnvelope<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: Timestamp,
    data: &'a RawValue,
}

fn body(event: &Event, endpoint: &Endpoint, content: &Content) -> Result<Bytes> {
    let is_sha256 = matches!(endpoint.profile, SignatureProfile::Sha256 { .. });
    let envelope = match endpoint.body {
        _ if is_sha256 => serde_json::to_vec(&Sha256Envelope {
            id: event.id.as_str(),
            event_type: event.event_type.as_str(),
            payload: raw(&content.body)?,
        }),
        BodyForm::Payload => return Ok(content.body.clone()),
        BodyForm::Envelope => serde_json::to_vec(&StandardEnvelope {
            event_type: event.event_type.as_str(),
            timestamp: event.occurred_at,
            data: raw(&content.body)?,
        }),
    };
    envelope.map(Bytes::from).map_err(|_| not_json())
}

fn raw(body: &[u8]) -> Result<&RawValue> {
    serde_json::from_slice(body).map_err(|_| not_json())
}

fn not_json() -> Error {
    Error::InvalidDelivery(Context::words(
        "the body must be JSON to be put into an envelope",
    ))
}
