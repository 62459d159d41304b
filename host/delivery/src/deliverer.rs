//! The domain's port, served: from a job and an endpoint to what came of sending it.

use std::time::Instant;

use wasmhook_core::attempt::{Attempt, AttemptResult, ErrorClass, Outcome};
use wasmhook_core::clock::{Clock, SystemClock};
use wasmhook_core::delivery::Job;
use wasmhook_core::ports::{Deliverer, SecretResolver};
use wasmhook_core::request::Content;
use wasmhook_core::{Endpoint, RequestBuilder};

use crate::client::Client;

/// Signs with the endpoint's secrets and sends, without plugins.
#[derive(Debug)]
pub struct HttpDeliverer<S, C = SystemClock> {
    client: Client,
    requests: RequestBuilder,
    secrets: S,
    clock: C,
}

impl<S: SecretResolver> HttpDeliverer<S> {
    /// Makes a deliverer that takes the time from the machine.
    pub fn new(client: Client, requests: RequestBuilder, secrets: S) -> Self {
        Self {
            client,
            requests,
            secrets,
            clock: SystemClock,
        }
    }
}

impl<S, C> HttpDeliverer<S, C> {
    /// Uses another clock.
    pub fn with_clock<D: Clock>(self, clock: D) -> HttpDeliverer<S, D> {
        HttpDeliverer {
            client: self.client,
            requests: self.requests,
            secrets: self.secrets,
            clock,
        }
    }
}

impl<S: SecretResolver, C: Clock> Deliverer for HttpDeliverer<S, C> {
    async fn deliver(&self, job: &Job, endpoint: &Endpoint, number: u32) -> AttemptResult {
        let event = &job.payload.event;
        let attempt = self.attempt(job, endpoint, number).await;
        AttemptResult {
            delivery_id: job.id.clone(),
            tenant_id: job.tenant_id.clone(),
            endpoint_id: endpoint.id.clone(),
            event_id: event.id.clone(),
            event_type: event.event_type.clone(),
            attempt,
        }
    }
}

impl<S: SecretResolver, C: Clock> HttpDeliverer<S, C> {
    async fn attempt(&self, job: &Job, endpoint: &Endpoint, number: u32) -> Attempt {
        let (at, started) = (self.clock.now(), Instant::now());
        let refused = |class, retryable, error: wasmhook_core::Error| {
            let outcome = Outcome::ValidationError;
            let took = started.elapsed();
            Attempt::refused(
                number,
                at,
                took,
                outcome,
                class,
                retryable,
                error.to_string(),
            )
        };
        let secrets: Result<Vec<_>, _> = endpoint
            .secrets
            .iter()
            .map(|name| self.secrets.resolve(&job.tenant_id, name))
            .collect();
        let secrets = match secrets {
            Ok(secrets) => secrets,
            // Retryable: the operator can still put the secret in its place.
            Err(error) => return refused(ErrorClass::Secret, true, error),
        };
        let event = &job.payload.event;
        let content = Content::original(event);
        match self
            .requests
            .build(&job.id, event, endpoint, &secrets, &content, at)
        {
            Ok(request) => {
                let client = self.client.of(&job.tenant_id);
                client.post(request, number, at).await
            }
            Err(error) => refused(ErrorClass::Request, false, error),
        }
    }
}
