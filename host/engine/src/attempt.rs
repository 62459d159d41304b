//! One attempt at one delivery: the hot path, top to bottom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::handler::check_endpoint;
use wasmhook_core::ports::MetricsRecorder as _;
use wasmhook_core::request::Content;
use wasmhook_core::{
    Conclusion, Context, Delivery, DeliveryState, Endpoint, Error, ErrorClass, Event, Outcome,
    OutgoingRequest, PluginName, PluginUse, RequestBuilder, RetryPolicy, SignatureProfile,
    UnsignedRequest,
};
use wasmhook_delivery::Client;
use wasmhook_runtime::{FailurePolicy, PluginHost};
use wasmhook_store::{EventDeliveries, Leased, Store, StoreError};
use wasmhook_tenants::Tenants;

use crate::classify;
use crate::healing;
use crate::metric::{self, AttemptMetrics};
use crate::resolve::{RESOLUTION, Resolver};
use crate::sign::Signing;
use crate::transform::{Transformed, pass};

/// Settings of attempts.
#[derive(Debug, Clone)]
pub struct AttempterConfig {
    /// When to try again.
    pub retry: RetryPolicy,
    /// Builds requests.
    pub requests: RequestBuilder,
    /// The longest one attempt may take in all, plugins included; shorter than the lease.
    pub deadline: Duration,
}

/// Makes attempts.
pub struct Attempter {
    config: AttempterConfig,
    tenants: Arc<Tenants>,
    plugins: Arc<PluginHost>,
    resolver: Resolver,
    client: Client,
    store: Arc<dyn Store>,
    metrics: AttemptMetrics,
}

/// What an attempt went through.
pub(crate) struct Trace {
    /// When it began.
    began: Instant,
    /// The plugins that ran.
    pub(crate) used: Vec<PluginUse>,
    /// Whether it ended at a plugin that could not be run for now: it is still being loaded, or too
    /// many calls were running.
    pub(crate) held: bool,
}

/// What keeps a delivery of a tenant from its endpoint when this host could never read the tenant's endpoints.
const UNREAD: &str = "the tenant's endpoints cannot be read; `wasmhook config check` says why";

/// About when a delivery is tried again that waits for a plugin to be loaded or for its turn. Compiling
/// takes a tenth of a second for a Rust guest and several seconds for one with an interpreter inside.
const HELD_WAIT: Duration = Duration::from_secs(2);

impl Attempter {
    /// Wires the rooms together.
    pub fn new(
        config: AttempterConfig,
        tenants: Arc<Tenants>,
        plugins: Arc<PluginHost>,
        resolver: Resolver,
        client: Client,
        store: Arc<dyn Store>,
    ) -> Self {
        Self {
            config,
            tenants,
            plugins,
            resolver,
            client,
            store,
            metrics: AttemptMetrics::default(),
        }
    }

    /// Makes the next attempt at a leased delivery, and says what becomes of the delivery. One that waits
    /// for a plugin that is as it was waits on with its last attempt, which is taken out of the others.
    pub async fn attempt(&self, leased: &mut Leased) -> (Delivery, Attempt) {
        let began = Instant::now();
        let at = Timestamp::now();
        let (delivery, event) = (&leased.delivery, &leased.event);
        let mut early = None;
        if let Some(failed) = healing::pending(delivery, &leased.attempts, at) {
            let plugins = self.plugins.tenant(event.tenant_id.as_str());
            let global = self.plugins.global();
            let is_resolution = delivery.endpoint_id.as_str() == RESOLUTION;
            if healing::has_changed((&plugins, &global), event, failed, is_resolution) {
                early = failed.next_at;
            } else if let Some(failed) = leased.attempts.pop() {
                return (waits_on(&leased.delivery, &failed, at), failed);
            }
        }
        let number = leased.delivery.attempt.saturating_add(1);
        let mut trace = Trace {
            began,
            used: Vec::new(),
            held: false,
        };
        let deadline = self.config.deadline;
        let made = self.make(&leased.delivery, &leased.event, number, at, &mut trace);
        let mut attempt = tokio::time::timeout(deadline, made)
            .await
            .unwrap_or_else(|_| {
                let words = "the attempt did not end before its deadline";
                Attempt::unanswered(number, at, began.elapsed(), ErrorClass::Timeout, words)
            });
        attempt.plugins = trace.used;
        let took = began.elapsed();
        attempt.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // Of this host's clock and of the store's, which may be behind.
        let delay = at.duration_since(leased.delivery.next_at);
        self.metrics
            .timed(delay.try_into().unwrap_or_default(), took);
        self.conclude(&leased.delivery, attempt, trace.held, early)
    }

    // Every delivery has one of these futures, and it is as large as its largest branch: what needs a
    // plugin is boxed, so that those without do not pay for it.
    async fn make(
        &self,
        delivery: &Delivery,
        event: &Event,
        number: u32,
        at: Timestamp,
        trace: &mut Trace,
    ) -> Attempt {
        if delivery.endpoint_id.as_str() == RESOLUTION {
            return Box::pin(self.resolve(event, number, at, trace)).await;
        }
        let refused = |class, retryable, error: &Error| {
            let outcome = Outcome::ValidationError;
            Attempt::refused(
                number,
                at,
                Duration::ZERO,
                outcome,
                class,
                retryable,
                error.to_string(),
            )
        };
        let endpoint = match self.endpoint(delivery, event) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                // Endpoints that could not be read are not gone.
                let may_come = self.tenants.is_unread(&delivery.tenant_id);
                return refused(ErrorClass::Endpoint, may_come, &error);
            }
        };
        // A missing secret is the operator's to put right, so the delivery waits for it.
        let secrets = match self.tenants.secrets_for(&endpoint) {
            Ok(secrets) => secrets,
            Err(error) => return refused(ErrorClass::Secret, true, &error),
        };
        let content = match self.transform(event, &endpoint, trace).await {
            Transformed::Deliver(content) => content,
            Transformed::Skip(reason) => {
                return Attempt::skipped(number, at, Duration::ZERO, reason);
            }
            Transformed::Failed { message, retryable } => {
                let (outcome, class) = (Outcome::PluginError, ErrorClass::Plugin);
                return Attempt::refused(
                    number,
                    at,
                    Duration::ZERO,
                    outcome,
                    class,
                    retryable,
                    message,
                );
            }
        };
        let requests = &self.config.requests;
        let request = if let SignatureProfile::Plugin { signer } = &endpoint.profile {
            let unsigned = match requests.prepare(event, &endpoint, &content) {
                Ok(unsigned) => unsigned,
                Err(error) => return refused(ErrorClass::Request, false, &error),
            };
            let signing = Signing {
                delivery: &delivery.id,
                event,
                endpoint: &endpoint,
                secrets: &secrets,
                at,
            };
            match Box::pin(self.signed(&signing, signer, unsigned, number, trace)).await {
                Ok(request) => request,
                Err(attempt) => return attempt,
            }
        } else {
            match requests.build(&delivery.id, event, &endpoint, &secrets, &content, at) {
                Ok(request) => request,
                Err(error) => return refused(ErrorClass::Request, false, &error),
            }
        };
        let client = self.client.of(&event.tenant_id);
        let answer = client.exchange(request, number, at);
        let plugins = self.plugins.tenant(event.tenant_id.as_str());
        if !classify::applies(&plugins, event) {
            return answer.await.0;
        }
        let (attempt, answer) = answer.await;
        let Some(answer) = answer else {
            return attempt;
        };
        let (deadline, used) = (trace.began + self.config.deadline, &mut trace.used);
        Box::pin(classify::judge(
            &plugins,
            event,
            &endpoint,
            attempt,
            &answer,
            deadline.into(),
            used,
        ))
        .await
    }

    /// Has a plugin sign the request; what it does not sign is the attempt.
    async fn signed(
        &self,
        signing: &Signing<'_>,
        signer: &PluginName,
        request: UnsignedRequest,
        number: u32,
        trace: &mut Trace,
    ) -> Result<OutgoingRequest, Attempt> {
        let plugins = self.plugins.tenant(signing.event.tenant_id.as_str());
        let answer = signing.by(signer, &plugins, request, &mut trace.used).await;
        answer.map_err(|failed| {
            trace.held = failed.held;
            Attempt::refused(
                number,
                signing.at,
                Duration::ZERO,
                Outcome::PluginError,
                ErrorClass::Plugin,
                failed.retryable,
                failed.message,
            )
        })
    }

    fn endpoint(&self, delivery: &Delivery, event: &Event) -> Result<Arc<Endpoint>, Error> {
        if let Some(resolved) = &delivery.resolved {
            return Ok(Arc::new(resolved.endpoint(event)));
        }
        let endpoint = self
            .tenants
            .endpoint(&delivery.tenant_id, &delivery.endpoint_id)
            .ok_or_else(|| {
                let unread = self.tenants.is_unread(&delivery.tenant_id);
                let words = if unread {
                    UNREAD
                } else {
                    "its endpoint is not registered"
                };
                Error::DeliveryNotFound(Context::words(words))
            })?;
        // A resolver may choose an endpoint that does not subscribe to the type, but not a disabled one.
        if endpoint.disabled || !self.resolver.applies(event) {
            check_endpoint(&endpoint, event)?;
        }
        Ok(endpoint)
    }

    /// Has the operator's plugins before, the tenant's own, and the operator's after make of an event what
    /// is sent.
    async fn transform(
        &self,
        event: &Event,
        endpoint: &Endpoint,
        trace: &mut Trace,
    ) -> Transformed {
        let plugins = self.plugins.tenant(event.tenant_id.as_str());
        let global = self.plugins.global();
        let mut content = Content::original(event);
        for stage in global.around(&plugins) {
            if stage.is_empty() {
                continue;
            }
            match Box::pin(pass(stage, event, endpoint, content, trace)).await {
                Transformed::Deliver(made) => content = made,
                ended => return ended,
            }
        }
        Transformed::Deliver(content)
    }

    /// The attempt of a delivery that stands for a resolver which failed at intake, or for endpoints that could
    /// not be read.
    async fn resolve(
        &self,
        event: &Event,
        number: u32,
        at: Timestamp,
        trace: &mut Trace,
    ) -> Attempt {
        if self.tenants.is_unread(&event.tenant_id) {
            let (outcome, class) = (Outcome::ValidationError, ErrorClass::Endpoint);
            let took = Duration::ZERO;
            return Attempt::refused(number, at, took, outcome, class, true, UNREAD.to_owned());
        }
        let (outcome, class) = (Outcome::PluginError, ErrorClass::Plugin);
        let targets = match self.resolver.ask(event).await {
            Ok((targets, plugin)) => {
                trace.used.extend(plugin);
                targets
            }
            Err(failure) => {
                let retryable = failure.retryable && failure.policy != FailurePolicy::DeadLetter;
                trace.held = failure.held;
                trace.used.push(failure.plugin);
                if failure.policy == FailurePolicy::DeliverOriginal {
                    self.resolver.subscribed(event)
                } else {
                    return Attempt::refused(
                        number,
                        at,
                        Duration::ZERO,
                        outcome,
                        class,
                        retryable,
                        failure.message,
                    );
                }
            }
        };
        match self.enqueue(event, targets, trace.used.last()).await {
            Ok(count) => {
                let who = if trace.used.is_empty() {
                    "the event is for"
                } else {
                    "the resolver chose"
                };
                let words = format!("{who} {count} endpoints, which have deliveries of their own");
                Attempt::skipped(number, at, Duration::ZERO, words)
            }
            Err(message) => {
                Attempt::refused(number, at, Duration::ZERO, outcome, class, true, message)
            }
        }
    }

    async fn enqueue(
        &self,
        event: &Event,
        targets: Vec<wasmhook_core::dispatch::Target>,
        resolver: Option<&PluginUse>,
    ) -> Result<usize, String> {
        let deliveries = self
            .resolver
            .plan(event, targets, resolver)
            .map_err(|error| error.to_string())?;
        let count = deliveries.len();
        let batch = [EventDeliveries {
            event: event.clone(),
            deliveries,
            extends: true,
        }];
        let stored: Result<_, StoreError> = self.store.enqueue(&batch).await;
        stored.map_err(|error| error.to_string())?;
        Ok(count)
    }

    fn conclude(
        &self,
        delivery: &Delivery,
        mut attempt: Attempt,
        held: bool,
        early: Option<Timestamp>,
    ) -> (Delivery, Attempt) {
        let now = Timestamp::now();
        let in_plugin = attempt.outcome == Outcome::PluginError;
        // Waiting for a plugin to be compiled, or for its turn, is nobody's failure, and to try a new
        // version early is the host's own idea: neither uses up the retries.
        let held = held.then(|| {
            let wait = healing::spread(HELD_WAIT, &delivery.id, now);
            now.saturating_add(wait).unwrap_or(now)
        });
        let spared = early
            .filter(|_| attempt.retryable)
            .or(held)
            .filter(|_| in_plugin);
        let conclusion = match spared {
            Some(next_at) => Conclusion::Failed { next_at },
            None => delivery.conclude(&attempt, &self.config.retry, now),
        };
        let mut delivery = delivery.concluded(&attempt, conclusion, now);
        if let Conclusion::Failed { next_at } = conclusion {
            attempt.next_at = Some(next_at);
            if in_plugin {
                delivery.next_at = healing::next_look(&delivery.id, attempt.at, next_at, now);
            }
        }
        if spared.is_some() {
            delivery.replayed_at_attempt = delivery.replayed_at_attempt.saturating_add(1);
        }
        self.metrics.attempt(
            &delivery.event_type,
            attempt.outcome,
            attempt.status_class(),
        );
        if conclusion == Conclusion::DeadLetter {
            metrics::counter!(metric::DEAD_LETTERS).increment(1);
        }
        log(&delivery, &attempt, conclusion);
        (delivery, attempt)
    }
}

/// A delivery whose last attempt failed in a plugin, at its next look.
fn waits_on(delivery: &Delivery, failed: &Attempt, now: Timestamp) -> Delivery {
    let due = failed.next_at.unwrap_or(now);
    let next_at = healing::next_look(&delivery.id, failed.at, due, now);
    tracing::debug!(
        tenant = %delivery.tenant_id, delivery = %delivery.id,
        "the plugin that failed is as it was; the delivery waits on"
    );
    Delivery {
        state: DeliveryState::Failed,
        next_at,
        ..delivery.clone()
    }
}

fn log(delivery: &Delivery, attempt: &Attempt, conclusion: Conclusion) {
    let error_class = attempt.error_class.map_or("none", ErrorClass::as_str);
    macro_rules! line {
        ($level:ident, $words:literal) => {
            tracing::$level!(
                tenant = %delivery.tenant_id, delivery = %delivery.id, event = %delivery.event_id,
                endpoint = %delivery.endpoint_id, attempt = attempt.number, outcome = %attempt.outcome,
                status = attempt.status_code, error_class, duration_ms = attempt.duration_ms, $words
            )
        };
    }
    match conclusion {
        Conclusion::Succeeded => line!(debug, "delivered"),
        Conclusion::Failed { .. } => line!(info, "the attempt failed; it will be repeated"),
        Conclusion::DeadLetter => line!(warn, "the delivery is a dead letter"),
    }
}
