//! The HTTP requests of plugins, through the client of deliveries.

use async_trait::async_trait;
use http::HeaderMap;
use wasmhook_core::{EndpointPolicy, EndpointUrl, ErrorClass, TenantId};
use wasmhook_delivery::{Client, Fetch, FetchError};
use wasmhook_runtime::{Grants, HttpBounds, HttpClient, HttpError, HttpRequest, HttpResponse};

/// Makes plugins' requests by the rules for deliveries.
pub struct PluginHttp {
    client: Client,
    policy: EndpointPolicy,
}

impl PluginHttp {
    /// Through `client`, to URLs that `policy` permits.
    pub fn new(client: Client, policy: EndpointPolicy) -> Self {
        Self { client, policy }
    }
}

#[async_trait]
impl HttpClient for PluginHttp {
    async fn fetch(
        &self,
        tenant: &str,
        request: HttpRequest,
        grants: &Grants,
        bounds: HttpBounds,
    ) -> Result<HttpResponse, HttpError> {
        let bad = |error: &dyn std::fmt::Display| HttpError::BadRequest(error.to_string());
        let url = EndpointUrl::new(&request.url).map_err(|error| bad(&error))?;
        url.permitted(self.policy).map_err(|error| bad(&error))?;
        // The host that is judged is the one that the client connects to: both read the parsed URL.
        if !grants.allow_host(&url.host().to_string()) {
            return Err(HttpError::NotGranted);
        }
        let fetch = Fetch::new(&request.method, url, &request.headers, request.body)
            .map_err(|error| bad(&error))?;
        let client = match TenantId::new(tenant) {
            Ok(tenant) => self.client.of(&tenant),
            Err(_) => self.client.clone(),
        };
        let answer = client
            .fetch(fetch, bounds.time, bounds.response_bytes)
            .await;
        match answer {
            Ok(answer) => Ok(HttpResponse {
                status: answer.status,
                headers: texts(&answer.headers),
                body: answer.body.to_vec(),
            }),
            Err(FetchError::TooLarge) => Err(HttpError::ResponseTooLarge),
            Err(FetchError::Failed(ErrorClass::Timeout)) => Err(HttpError::Timeout),
            Err(FetchError::Failed(ErrorClass::AddressRefused)) => Err(HttpError::AddressRefused),
            Err(_) => Err(HttpError::Unreachable),
        }
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let text = std::str::from_utf8(value.as_bytes()).ok()?;
            Some((name.as_str().to_owned(), text.to_owned()))
        })
        .collect()
}
