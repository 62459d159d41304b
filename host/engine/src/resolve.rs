//! Which endpoints an event goes to: the subscribed ones, and what the tenant's resolver plugin
//! makes of them.

use std::sync::Arc;

use tokio::time::timeout;
use wasmhook_core::dispatch::{Target, plan};
use wasmhook_core::{
    Delivery, Endpoint, EndpointId, EndpointPolicy, EndpointUrl, Error, Event, OrderingKey,
    PluginUse, ResolvedEndpoint, SafeHeaders, SecretName, delivery,
};
use wasmhook_runtime::{
    Choice, EndpointView, EventView, Exports, FailurePolicy, Fault, Mode, NewEndpoint, Plugin,
    PluginHost, Resolution, Unready,
};
use wasmhook_tenants::Tenants;

use crate::slow_resolvers::{PATIENCE, SlowResolvers};

/// The endpoint id of a delivery that stands for a resolver which has yet to answer, or for endpoints that have
/// yet to be read. When it is attempted, the resolver is asked again, and its answer becomes deliveries of their
/// own.
pub const RESOLUTION: &str = "(resolver)";

/// The most endpoints a resolver may choose for one event.
pub const MAX_CHOICES: usize = 1000;

/// Finds the targets of events.
#[derive(Clone)]
pub struct Resolver {
    tenants: Arc<Tenants>,
    plugins: Arc<PluginHost>,
    policy: EndpointPolicy,
    slow: Arc<SlowResolvers>,
}

/// Why a resolver gave no usable answer.
#[derive(Debug)]
pub struct ResolverFailure {
    /// The plugin that ran.
    pub plugin: PluginUse,
    /// What its manifest says about failures.
    pub policy: FailurePolicy,
    /// Whether asking again may help.
    pub retryable: bool,
    /// Whether the plugin was not asked, because it is still being loaded or too many calls were running.
    pub held: bool,
    /// Free of payload.
    pub message: String,
}

impl Resolver {
    /// Reads endpoints from `tenants`, asks the resolvers in `plugins`, and holds what they answer to
    /// `policy`.
    pub fn new(tenants: Arc<Tenants>, plugins: Arc<PluginHost>, policy: EndpointPolicy) -> Self {
        Self {
            tenants,
            plugins,
            policy,
            slow: Arc::default(),
        }
    }

    /// Whether the tenant has a resolver that wants to see this event, ready or not.
    pub fn applies(&self, event: &Event) -> bool {
        let plugins = self.plugins.tenant(event.tenant_id.as_str());
        let event_type = event.event_type.as_str();
        self.plugin(event).is_some()
            || unready(&plugins.unready, event_type, |exports| exports.resolve).is_some()
    }

    fn plugin(&self, event: &Event) -> Option<Arc<Plugin>> {
        let plugins = self.plugins.tenant(event.tenant_id.as_str());
        let (id, event_type) = (event.id.as_str(), event.event_type.as_str());
        plugins
            .resolver_for(id)?
            .version_with(|exports| exports.resolve, id, event_type)
    }

    /// The endpoints that subscribe to the event.
    pub fn subscribed(&self, event: &Event) -> Vec<Target> {
        self.tenants
            .endpoints(&event.tenant_id)
            .iter()
            .filter(|endpoint| endpoint.matches(event))
            .map(|endpoint| Target {
                endpoint: Arc::clone(endpoint),
                resolved: None,
            })
            .collect()
    }

    /// The deliveries of an event, for intake. A resolver that takes long, by itself or because too many
    /// calls of its tenant are running, is asked by a worker: the event gets one delivery to [`RESOLUTION`]
    /// until then, so that no tenant's plugin holds up the events of others. When the resolver fails, its
    /// failure policy decides: the subscribed endpoints for `deliver-original`, otherwise one delivery to
    /// [`RESOLUTION`], which makes the failure visible and is retried or dead-lettered like any other.
    ///
    /// An event of a tenant whose endpoints could never be read has such a delivery as well.
    pub async fn deliveries(&self, event: &Event) -> Result<Vec<Delivery>, Error> {
        if self.tenants.is_unread(&event.tenant_id) {
            return Self::resolution(event);
        }
        let asked = if self.plugin(event).is_none() {
            Some(self.ask(event).await)
        } else if self.slow.contains(&event.tenant_id) {
            None
        } else {
            timeout(PATIENCE, self.ask(event)).await.ok()
        };
        match asked {
            None => {
                if self.slow.add(&event.tenant_id) {
                    tracing::warn!(
                        tenant = %event.tenant_id, event = %event.id,
                        "the resolver takes long; for some time it is asked after intake"
                    );
                }
                Self::resolution(event)
            }
            Some(Ok((targets, resolver))) => self.plan(event, targets, resolver.as_ref()),
            Some(Err(failure)) => {
                metrics::counter!(crate::metric::RESOLVER_FAILURES).increment(1);
                tracing::warn!(
                    tenant = %event.tenant_id, event = %event.id, plugin = failure.plugin.name,
                    digest = failure.plugin.digest, error = failure.message, "the resolver failed"
                );
                if failure.policy == FailurePolicy::DeliverOriginal {
                    return self.plan(event, self.subscribed(event), Some(&failure.plugin));
                }
                Self::resolution(event)
            }
        }
    }

    /// The delivery that stands for a resolver which has yet to answer.
    fn resolution(event: &Event) -> Result<Vec<Delivery>, Error> {
        let endpoint = EndpointId::new(RESOLUTION)?;
        let id = delivery::default_id(&event.tenant_id, &event.id, &endpoint);
        let now = jiff::Timestamp::now();
        let delivery = Delivery::pending(id, event, endpoint, None, now);
        // Asked at once, so that a scheduled event has its deliveries in time.
        Ok(vec![Delivery {
            next_at: now,
            ..delivery
        }])
    }

    /// Pending deliveries for these targets, and for the record the resolver that was asked.
    pub fn plan(
        &self,
        event: &Event,
        targets: Vec<Target>,
        resolver: Option<&PluginUse>,
    ) -> Result<Vec<Delivery>, Error> {
        let now = jiff::Timestamp::now();
        let mut deliveries = plan(event, targets, self.policy, delivery::default_id, now)?;
        for delivery in &mut deliveries {
            delivery.resolver = resolver.cloned();
        }
        Ok(deliveries)
    }

    /// Asks the resolver, if there is one, and checks its answer.
    pub async fn ask(
        &self,
        event: &Event,
    ) -> Result<(Vec<Target>, Option<PluginUse>), ResolverFailure> {
        let subscribed = self.subscribed(event);
        let Some(plugin) = self.plugin(event) else {
            let plugins = self.plugins.tenant(event.tenant_id.as_str());
            let event_type = event.event_type.as_str();
            return match unready(&plugins.unready, event_type, |exports| exports.resolve) {
                None => {
                    if let Some(plugin) = plugins.resolvers.first() {
                        let occurred_at = event.occurred_at.to_string();
                        let view = event_view(event, &occurred_at, event.payload.bytes());
                        plugin.passed_without_resolve(&view, &endpoint_views(&subscribed));
                    }
                    Ok((subscribed, None))
                }
                Some(missing) => Err(missed(&missing)),
            };
        };
        let occurred_at = event.occurred_at.to_string();
        let view = event_view(event, &occurred_at, event.payload.bytes());
        let endpoints = endpoint_views(&subscribed);
        let mut used = PluginUse {
            name: plugin.name().to_owned(),
            digest: plugin.digest().to_string(),
            cpu_us: 0,
            verdict: None,
        };
        let failure = |plugin_use: PluginUse, retryable, message| ResolverFailure {
            plugin: plugin_use,
            policy: plugin.policy(),
            retryable,
            held: false,
            message,
        };
        let call = match plugin.resolve(&view, &endpoints).await {
            Ok(call) => call,
            Err(error) => {
                used.cpu_us = micros(error.cpu);
                used.verdict = Some(verdict(&error.fault).to_owned());
                let mut failure = failure(used, retryable(&error.fault), error.to_string());
                if matches!(error.fault, Fault::Exhausted) {
                    // The host's doing, not the plugin's: the event waits whatever its policy.
                    failure.held = true;
                    failure.policy = FailurePolicy::Retry;
                }
                return Err(failure);
            }
        };
        used.cpu_us = micros(call.cpu);
        used.verdict = Some(RESOLVED.to_owned());
        match self.apply(event, subscribed, call.value) {
            Ok(targets) => Ok((targets, Some(used))),
            // An answer that breaks a rule is the plugin's fault; a fixed plugin heals it.
            Err(error) => {
                plugin.refuse_answer(event.id.as_str(), &error.to_string());
                used.verdict = Some(REFUSED.to_owned());
                let words = format!("the resolver's answer was refused: {error}");
                Err(failure(used, true, words))
            }
        }
    }

    fn apply(
        &self,
        event: &Event,
        subscribed: Vec<Target>,
        answer: Resolution,
    ) -> Result<Vec<Target>, Error> {
        if answer.choices.len() > MAX_CHOICES {
            return Err(Error::InvalidEndpoint(wasmhook_core::Context::words(
                format!("expected at most {MAX_CHOICES} choices"),
            )));
        }
        let mut targets = match answer.mode {
            Mode::Add => subscribed,
            Mode::Replace => Vec::new(),
        };
        for choice in answer.choices {
            targets.push(match choice {
                Choice::Registered(id) => self.registered(event, &id)?,
                Choice::New(made) => self.made(event, made)?,
            });
        }
        Ok(targets)
    }

    fn registered(&self, event: &Event, id: &str) -> Result<Target, Error> {
        let unknown = |why| Error::InvalidEndpoint(wasmhook_core::Context::words(why));
        let id = EndpointId::new(id)?;
        let endpoint = self
            .tenants
            .endpoint(&event.tenant_id, &id)
            .ok_or_else(|| unknown("the chosen endpoint is not registered"))?;
        if endpoint.disabled {
            return Err(unknown("the chosen endpoint is disabled"));
        }
        Ok(Target {
            endpoint,
            resolved: None,
        })
    }

    fn made(&self, event: &Event, made: NewEndpoint) -> Result<Target, Error> {
        let (resolved, endpoint) = Self::checked(self.policy, event, made)?;
        // Asked for now, so that a wrong name is the plugin's error and not a delivery's.
        self.tenants.secrets_for(&endpoint)?;
        Ok(Target {
            endpoint: Arc::new(endpoint),
            resolved: Some(resolved),
        })
    }

    /// An endpoint that a resolver made, or the rule that it breaks. Whether its secret is there is not
    /// looked at.
    pub fn checked(
        policy: EndpointPolicy,
        event: &Event,
        made: NewEndpoint,
    ) -> Result<(ResolvedEndpoint, Endpoint), Error> {
        let ordering_key = match made.ordering_key.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(key) => Some(OrderingKey::new(key)?.into()),
        };
        let resolved = ResolvedEndpoint {
            url: EndpointUrl::new(&made.url)?,
            secret: SecretName::new(&made.secret)?,
            headers: SafeHeaders::new(made.headers)?,
            ordering_key,
        };
        resolved.url.permitted(policy)?;
        let endpoint = resolved.endpoint(event);
        endpoint.validate(policy)?;
        Ok((resolved, endpoint))
    }
}

/// The failure of a resolver that no version of can serve.
fn missed(missing: &Unready) -> ResolverFailure {
    ResolverFailure {
        plugin: PluginUse {
            name: missing.name.to_string(),
            digest: String::new(),
            cpu_us: 0,
            verdict: Some(UNREADY.to_owned()),
        },
        policy: missing.policy(),
        retryable: true,
        held: missing.loading,
        message: format!("plugin {} does not serve: {}", missing.name, missing.reason),
    }
}

/// A plugin that should have seen the event and has no version that serves. One whose exports are
/// not known counts as exporting everything: an event must not pass by what may have held it back.
pub(crate) fn unready(
    unready: &[Unready],
    event_type: &str,
    exports: fn(Exports) -> bool,
) -> Option<Unready> {
    unready
        .iter()
        .find(|plugin| plugin.exports.is_none_or(exports) && plugin.sees(event_type))
        .cloned()
}

/// Verdicts in records, see [`PluginUse::verdict`].
const RESOLVED: &str = "resolve";
const UNREADY: &str = "unready";
pub(crate) const REFUSED: &str = "refused";

/// The verdict of a call that gave no answer.
pub(crate) fn verdict(fault: &Fault) -> &'static str {
    match fault {
        Fault::Guest { .. } => "failure",
        fault => fault.class(),
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whether calling again may help: everything but the guest's own word that it will not.
pub fn retryable(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::Guest {
            retryable: false,
            ..
        }
    )
}

/// The event as plugins see it, with the body that it has by now.
pub fn event_view<'a>(event: &'a Event, occurred_at: &'a str, body: &'a [u8]) -> EventView<'a> {
    EventView {
        id: event.id.as_str(),
        tenant: event.tenant_id.as_str(),
        event_type: event.event_type.as_str(),
        occurred_at,
        payload: body,
    }
}

fn endpoint_views(targets: &[Target]) -> Vec<EndpointView<'_>> {
    let endpoints = targets.iter().map(|target| &*target.endpoint);
    endpoints.map(endpoint_view).collect()
}

/// The endpoint as plugins see it.
pub fn endpoint_view(endpoint: &Endpoint) -> EndpointView<'_> {
    EndpointView {
        id: endpoint.id.as_str(),
        url: endpoint.url.as_url().as_str(),
    }
}
