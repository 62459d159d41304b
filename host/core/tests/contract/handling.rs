//! Working off one job: what is checked, in which order things happen, what is concluded.

use std::sync::Arc;
use std::time::Duration;

use wasmhook_core::{
    AttemptResult, Conclusion, Delivery, DeliveryId, Endpoint, EndpointId, EndpointUrl, Error,
    Handler, Job, ResolvedEndpoint, Result, RetryPolicy, SafeHeaders, SecretName, TenantId,
};

use crate::support::{
    At, Attempts, Journal, Metrics, Network, Receiver, Registry, endpoint, event, now, of_tenant,
    subscribed,
};

/// A handler whose ports write into one journal.
struct Bench {
    registry: Registry,
    network: Network,
    attempts: Attempts,
    journal: Journal,
}

impl Bench {
    fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let journal = Journal::default();
        Self {
            registry: Registry::of(endpoints),
            network: Network {
                receiver: Receiver::Answers(204),
                journal: journal.clone(),
            },
            attempts: Attempts {
                journal: journal.clone(),
                ..Attempts::default()
            },
            journal,
        }
    }

    fn receiver(mut self, receiver: Receiver) -> Self {
        self.network.receiver = receiver;
        self
    }

    async fn handle(&self, delivery: &Delivery, job: &Job) -> Result<(AttemptResult, Conclusion)> {
        Handler::new(
            self.registry.clone(),
            self.network.clone(),
            self.attempts.clone(),
            RetryPolicy::default(),
        )
        .with_clock(At(now()))
        .with_metrics(Metrics(self.journal.clone()))
        .handle(delivery, job)
        .await
    }

    /// What handling fails with; no request may have been made and no attempt recorded.
    async fn refusal(&self, delivery: &Delivery, job: &Job) -> String {
        let error = self.handle(delivery, job).await.unwrap_err();
        let lines = self.journal.lines();
        let metrics = lines
            .iter()
            .filter(|line| line.ends_with(" validation_error unknown"));
        assert_eq!(
            metrics.count(),
            lines.len(),
            "more was done than observing: {lines:?}"
        );
        error.to_string()
    }
}

/// The pending delivery of the event to acme's `main`, and its job.
fn delivery_and_job() -> (Delivery, Job) {
    let event = event();
    let id = DeliveryId::new("whdel_1").unwrap();
    let to = EndpointId::new("main").unwrap();
    let delivery = Delivery::pending(id, &event, to, None, now());
    let job = delivery.job(&event);
    (delivery, job)
}

#[tokio::test]
async fn a_job_whose_id_is_not_its_delivery_id_is_refused() {
    let (delivery, mut job) = delivery_and_job();
    job.id = DeliveryId::new("whdel_2").unwrap();
    assert_eq!(
        Bench::new([endpoint("main")])
            .refusal(&delivery, &job)
            .await,
        "invalid webhook delivery: the job's id is not its delivery's id"
    );
}

#[tokio::test]
async fn a_job_of_another_delivery_is_refused() {
    let (delivery, mut job) = delivery_and_job();
    job.id = DeliveryId::new("whdel_2").unwrap();
    job.payload.delivery_id = job.id.clone();
    assert_eq!(
        Bench::new([endpoint("main")])
            .refusal(&delivery, &job)
            .await,
        "invalid webhook delivery: the job is another delivery's"
    );
}

#[tokio::test]
async fn a_job_of_another_tenant_than_its_event_is_refused() {
    let (delivery, mut job) = delivery_and_job();
    job.tenant_id = TenantId::new("globex").unwrap();
    assert_eq!(
        Bench::new([endpoint("main")])
            .refusal(&delivery, &job)
            .await,
        "webhook tenant mismatch: the job's tenant is not its event's tenant"
    );
}

#[tokio::test]
async fn a_missing_endpoint_is_not_found() {
    let (delivery, job) = delivery_and_job();
    assert_eq!(
        Bench::new([]).refusal(&delivery, &job).await,
        "webhook delivery not found: its endpoint does not exist"
    );
}

#[tokio::test]
async fn another_tenants_endpoint_of_the_same_id_is_not_found() {
    let (delivery, job) = delivery_and_job();
    let bench = Bench::new([of_tenant("globex", endpoint("main"))]);
    assert_eq!(
        bench.refusal(&delivery, &job).await,
        "webhook delivery not found: its endpoint does not exist"
    );
    assert_eq!(bench.registry.journal.lines(), ["get acme main"]);
}

#[tokio::test]
async fn an_endpoint_disabled_since_gets_no_request() {
    let (delivery, job) = delivery_and_job();
    let disabled = Endpoint {
        disabled: true,
        ..endpoint("main")
    };
    assert_eq!(
        Bench::new([disabled]).refusal(&delivery, &job).await,
        "webhook tenant mismatch: the endpoint is disabled"
    );
}

#[tokio::test]
async fn an_endpoint_that_unsubscribed_since_gets_no_request() {
    let (delivery, job) = delivery_and_job();
    let bench = Bench::new([subscribed("main", "invoice.voided")]);
    assert_eq!(
        bench.refusal(&delivery, &job).await,
        "webhook tenant mismatch: the endpoint no longer subscribes to the event's type"
    );
}

#[tokio::test]
async fn the_endpoint_is_the_one_of_the_moment() {
    let (delivery, job) = delivery_and_job();
    let bench = Bench::new([endpoint("main")]);
    bench.registry.replace([Endpoint {
        url: EndpointUrl::new("https://moved.example/hooks").unwrap(),
        ..endpoint("main")
    }]);
    bench.handle(&delivery, &job).await.unwrap();
    assert_eq!(
        bench.journal.lines()[0],
        "request 1 to main at https://moved.example/hooks"
    );
}

#[tokio::test]
async fn an_attempt_is_requested_then_recorded_then_observed() {
    let (delivery, job) = delivery_and_job();
    let bench = Bench::new([endpoint("main")]);
    let (result, conclusion) = bench.handle(&delivery, &job).await.unwrap();
    assert_eq!(
        bench.journal.lines(),
        [
            "request 1 to main at https://receiver.example/hooks",
            "record 1",
            "metric invoice.paid accepted 2xx",
        ]
    );
    assert_eq!(*bench.attempts.kept.lock().unwrap(), [result]);
    assert_eq!(conclusion, Conclusion::Succeeded);
}

#[tokio::test]
async fn attempts_count_on_from_the_jobs_previous_ones() {
    let (mut delivery, mut job) = delivery_and_job();
    (delivery.attempt, job.attempt) = (4, 4);
    let bench = Bench::new([endpoint("main")]);
    let (result, _) = bench.handle(&delivery, &job).await.unwrap();
    assert_eq!(result.attempt.number, 5);
}

#[tokio::test]
async fn an_attempt_that_cannot_be_recorded_concludes_nothing() {
    let (delivery, job) = delivery_and_job();
    let mut bench = Bench::new([endpoint("main")]);
    bench.attempts.broken = true;
    let error = bench.handle(&delivery, &job).await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error}");
    assert_eq!(bench.journal.lines().len(), 1, "only the request happened");
}

#[tokio::test]
async fn unaccepted_attempts_are_recorded_and_observed_too() {
    for (receiver, observed) in [
        (Receiver::Answers(302), "metric invoice.paid failed 3xx"),
        (Receiver::Answers(404), "metric invoice.paid failed 4xx"),
        (Receiver::Answers(429), "metric invoice.paid failed 4xx"),
        (Receiver::Answers(503), "metric invoice.paid failed 5xx"),
        (
            Receiver::IsUnreachable,
            "metric invoice.paid transport_error transport",
        ),
    ] {
        let (delivery, job) = delivery_and_job();
        let bench = Bench::new([endpoint("main")]).receiver(receiver);
        bench.handle(&delivery, &job).await.unwrap();
        assert_eq!(bench.journal.lines()[1..], ["record 1", observed]);
    }
}

#[tokio::test]
async fn what_may_heal_is_due_again_after_the_policys_wait() {
    for receiver in [
        Receiver::Answers(429),
        Receiver::Answers(500),
        Receiver::IsUnreachable,
    ] {
        let (mut delivery, mut job) = delivery_and_job();
        (delivery.attempt, job.attempt) = (2, 2);
        let bench = Bench::new([endpoint("main")]).receiver(receiver);
        let (_, conclusion) = bench.handle(&delivery, &job).await.unwrap();
        let next_at = now() + Duration::from_secs(4);
        assert_eq!(conclusion, Conclusion::Failed { next_at }, "{receiver:?}");
    }
}

#[tokio::test]
async fn what_is_permanent_is_a_dead_letter_at_once() {
    for status in [301, 400, 404, 410] {
        let (delivery, job) = delivery_and_job();
        let bench = Bench::new([endpoint("main")]).receiver(Receiver::Answers(status));
        let (_, conclusion) = bench.handle(&delivery, &job).await.unwrap();
        assert_eq!(conclusion, Conclusion::DeadLetter, "{status}");
    }
}

#[tokio::test]
async fn the_last_attempt_of_the_policy_leaves_a_dead_letter() {
    let (mut delivery, mut job) = delivery_and_job();
    (delivery.attempt, job.attempt) = (9, 9);
    let bench = Bench::new([endpoint("main")]).receiver(Receiver::Answers(503));
    let (_, conclusion) = bench.handle(&delivery, &job).await.unwrap();
    assert_eq!(conclusion, Conclusion::DeadLetter);
}

#[tokio::test]
async fn an_endpoint_that_a_plugin_made_up_needs_no_registry() {
    let (mut delivery, job) = delivery_and_job();
    delivery.resolved = Some(ResolvedEndpoint {
        url: EndpointUrl::new("https://made-up.example/").unwrap(),
        secret: SecretName::new("main").unwrap(),
        headers: SafeHeaders::default(),
        ordering_key: None,
    });
    let bench = Bench::new([]);
    let (result, _) = bench.handle(&delivery, &job).await.unwrap();
    assert!(result.endpoint_id.as_str().starts_with("whep_"));
    assert_eq!(bench.registry.journal.lines(), [""; 0]);
}

#[test]
fn a_shared_clock_is_a_clock() {
    use wasmhook_core::Clock as _;
    assert_eq!(Arc::new(At(now())).now(), now());
}
