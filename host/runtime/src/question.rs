//! What is asked of a guest, with all that belongs to it: a call may go on on another thread than it began
//! on, where nothing can be borrowed from whoever asks.

use std::sync::Arc;

use crate::bindings::{classify, sign, types};
use crate::imports::signing::Signer;
use crate::types::{EndpointView, EventView, Judgement, ResponseView, UnsignedView};

/// A question to a guest.
pub(crate) enum Question {
    /// Nothing: only start.
    Start,
    Transform(OwnedEvent, OwnedEndpoint),
    Resolve(OwnedEvent, Vec<OwnedEndpoint>),
    Classify(OwnedEvent, OwnedEndpoint, OwnedResponse, Judgement),
    Sign(OwnedEndpoint, OwnedUnsigned, Arc<dyn Signer>),
}

impl Question {
    pub(crate) fn transform(event: &EventView<'_>, endpoint: &EndpointView<'_>) -> Self {
        Self::Transform(OwnedEvent::of(event), OwnedEndpoint::of(endpoint))
    }

    pub(crate) fn resolve(event: &EventView<'_>, subscribed: &[EndpointView<'_>]) -> Self {
        let subscribed = subscribed.iter().map(OwnedEndpoint::of).collect();
        Self::Resolve(OwnedEvent::of(event), subscribed)
    }

    pub(crate) fn classify(
        event: &EventView<'_>,
        endpoint: &EndpointView<'_>,
        response: &ResponseView<'_>,
        so_far: Judgement,
    ) -> Self {
        let response = OwnedResponse {
            status: response.status,
            headers: owned(response.headers),
            body: response.body.to_vec(),
            complete: response.complete,
        };
        Self::Classify(
            OwnedEvent::of(event),
            OwnedEndpoint::of(endpoint),
            response,
            so_far,
        )
    }

    pub(crate) fn sign(
        endpoint: &EndpointView<'_>,
        request: &UnsignedView<'_>,
        signer: &Arc<dyn Signer>,
    ) -> Self {
        let unsigned = OwnedUnsigned {
            delivery_id: request.delivery_id.to_owned(),
            event_id: request.event_id.to_owned(),
            event_type: request.event_type.to_owned(),
            timestamp: request.timestamp,
            headers: owned(request.headers),
            body: request.body.to_vec(),
        };
        Self::Sign(OwnedEndpoint::of(endpoint), unsigned, Arc::clone(signer))
    }

    /// The id of the event that it has to do with.
    pub(crate) fn event_id(&self) -> Option<&str> {
        match self {
            Self::Sign(_, request, _) => Some(&request.event_id),
            other => other.event().map(|event| &*event.id),
        }
    }

    /// The event that it is about.
    pub(crate) fn event(&self) -> Option<&OwnedEvent> {
        match self {
            // What is signed is a request, and none of the operator's plugins signs.
            Self::Start | Self::Sign(..) => None,
            Self::Transform(event, _) | Self::Resolve(event, _) | Self::Classify(event, ..) => {
                Some(event)
            }
        }
    }
}

/// An event that outlives the call it came with.
pub(crate) struct OwnedEvent {
    pub(crate) id: String,
    pub(crate) tenant: String,
    event_type: String,
    occurred_at: String,
    payload: Vec<u8>,
}

impl OwnedEvent {
    pub(crate) fn of(event: &EventView<'_>) -> Self {
        Self {
            id: event.id.to_owned(),
            tenant: event.tenant.to_owned(),
            event_type: event.event_type.to_owned(),
            occurred_at: event.occurred_at.to_owned(),
            payload: event.payload.to_vec(),
        }
    }

    /// In the contract's words.
    pub(crate) fn guest(&self) -> types::Event<'_> {
        types::Event {
            id: &self.id,
            tenant: &self.tenant,
            event_type: &self.event_type,
            occurred_at: &self.occurred_at,
            payload: &self.payload,
        }
    }
}

/// An endpoint that does.
pub(crate) struct OwnedEndpoint {
    id: String,
    url: String,
}

impl OwnedEndpoint {
    pub(crate) fn of(endpoint: &EndpointView<'_>) -> Self {
        Self {
            id: endpoint.id.to_owned(),
            url: endpoint.url.to_owned(),
        }
    }

    /// In the contract's words.
    pub(crate) fn guest(&self) -> types::Endpoint<'_> {
        types::Endpoint {
            id: &self.id,
            url: &self.url,
        }
    }
}

/// A receiver's answer that does.
pub(crate) struct OwnedResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    complete: bool,
}

impl OwnedResponse {
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        borrowed(&self.headers)
    }

    /// In the contract's words, with the headers in the form that these are in.
    pub(crate) fn guest<'a>(&'a self, headers: &'a [(&'a str, &'a str)]) -> classify::Response<'a> {
        classify::Response {
            status: self.status,
            headers,
            body: &self.body,
            complete: self.complete,
        }
    }
}

/// A request to sign that does.
pub(crate) struct OwnedUnsigned {
    delivery_id: String,
    event_id: String,
    event_type: String,
    timestamp: u64,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl OwnedUnsigned {
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        borrowed(&self.headers)
    }

    /// In the contract's words, with the headers in the form that these are in.
    pub(crate) fn guest<'a>(
        &'a self,
        headers: &'a [(&'a str, &'a str)],
    ) -> sign::UnsignedRequest<'a> {
        sign::UnsignedRequest {
            delivery_id: &self.delivery_id,
            event_id: &self.event_id,
            event_type: &self.event_type,
            timestamp: self.timestamp,
            headers,
            body: &self.body,
        }
    }
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    headers.iter().map(owned).collect()
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    let borrowed = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    borrowed.collect()
}
