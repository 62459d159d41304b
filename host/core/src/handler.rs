//! Handling one job: load the endpoint, deliver, record, conclude.

use crate::attempt::{AttemptResult, Outcome, StatusClass};
use crate::clock::{Clock, SystemClock};
use crate::delivery::{Conclusion, Delivery, Job};
use crate::endpoint::Endpoint;
use crate::error::{Context, Error, Result};
use crate::event::Event;
use crate::ports::{AttemptRecorder, Deliverer, EndpointGetter, MetricsRecorder};
use crate::retry::RetryPolicy;

/// Works off one job at a time. A host with a queue of its own that leases and records in batches
/// uses the same rules directly: [`check_job`], [`check_endpoint`] and [`Delivery::conclude`].
#[derive(Debug)]
pub struct Handler<G, D, A, M = (), C = SystemClock> {
    endpoints: G,
    deliverer: D,
    attempts: A,
    metrics: M,
    clock: C,
    policy: RetryPolicy,
}

impl<G: EndpointGetter, D: Deliverer, A: AttemptRecorder> Handler<G, D, A> {
    /// Makes a handler with the machine's clock and no metrics.
    pub fn new(endpoints: G, deliverer: D, attempts: A, policy: RetryPolicy) -> Self {
        Self {
            endpoints,
            deliverer,
            attempts,
            metrics: (),
            clock: SystemClock,
            policy,
        }
    }
}

impl<G, D, A, M, C> Handler<G, D, A, M, C>
where
    G: EndpointGetter,
    D: Deliverer,
    A: AttemptRecorder,
    M: MetricsRecorder,
    C: Clock,
{
    /// Uses another clock.
    pub fn with_clock<E: Clock>(self, clock: E) -> Handler<G, D, A, M, E> {
        let Self {
            endpoints,
            deliverer,
            attempts,
            metrics,
            policy,
            ..
        } = self;
        Handler {
            endpoints,
            deliverer,
            attempts,
            metrics,
            clock,
            policy,
        }
    }

    /// Reports attempts to `metrics`.
    pub fn with_metrics<N: MetricsRecorder>(self, metrics: N) -> Handler<G, D, A, N, C> {
        let Self {
            endpoints,
            deliverer,
            attempts,
            clock,
            policy,
            ..
        } = self;
        Handler {
            endpoints,
            deliverer,
            attempts,
            metrics,
            clock,
            policy,
        }
    }

    /// Handles the job of a delivery. The attempt is durably recorded when this returns; the caller
    /// then applies the conclusion to its queue.
    ///
    /// # Errors
    /// A job that contradicts itself, an endpoint that is missing or no longer wants the event (no
    /// request is made then, and `validation_error` is observed), or a port that failed. A host whose
    /// resolvers may choose endpoints that do not subscribe decides about that before it asks here.
    pub async fn handle(
        &self,
        delivery: &Delivery,
        job: &Job,
    ) -> Result<(AttemptResult, Conclusion)> {
        check_job(job)?;
        if job.id != delivery.id {
            return Err(Error::InvalidDelivery(Context::words(
                "the job is another delivery's",
            )));
        }
        let event = &job.payload.event;
        let endpoint = match &delivery.resolved {
            Some(resolved) => std::sync::Arc::new(resolved.endpoint(event)),
            None => self
                .endpoints
                .get(&job.tenant_id, &job.payload.endpoint_id)
                .await?
                .ok_or_else(|| {
                    Error::DeliveryNotFound(Context::words("its endpoint does not exist"))
                })?,
        };
        if let Err(error) = check_endpoint(&endpoint, event) {
            self.metrics.attempt(
                &event.event_type,
                Outcome::ValidationError,
                StatusClass::Unknown,
            );
            return Err(error);
        }
        let result = self
            .deliverer
            .deliver(job, &endpoint, job.attempt.saturating_add(1))
            .await;
        self.attempts.record(&result).await?;
        self.metrics.attempt(
            &result.event_type,
            result.attempt.outcome,
            result.attempt.status_class(),
        );
        let conclusion = delivery.conclude(&result.attempt, &self.policy, self.clock.now());
        Ok((result, conclusion))
    }
}

/// Refuses a job that contradicts itself.
pub fn check_job(job: &Job) -> Result<()> {
    if job.id != job.payload.delivery_id {
        return Err(Error::InvalidDelivery(Context::words(
            "the job's id is not its delivery's id",
        )));
    }
    if job.tenant_id != job.payload.event.tenant_id {
        return Err(Error::TenantMismatch(Context::words(
            "the job's tenant is not its event's tenant",
        )));
    }
    Ok(())
}

/// Refuses an endpoint that no longer wants the event.
pub fn check_endpoint(endpoint: &Endpoint, event: &Event) -> Result<()> {
    if endpoint.matches(event) {
        return Ok(());
    }
    let why = if endpoint.tenant_id != event.tenant_id {
        "the endpoint is another tenant's"
    } else if endpoint.disabled {
        "the endpoint is disabled"
    } else {
        "the endpoint no longer subscribes to the event's type"
    };
    Err(Error::TenantMismatch(Context::words(why)))
}
