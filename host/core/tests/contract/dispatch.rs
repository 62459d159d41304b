//! Catalog, matching, validation, and the pending deliveries that come of an event.

use std::sync::Arc;

use jiff::Timestamp;
use wasmhook_core::dispatch::{Target, plan};
use wasmhook_core::ports::Enqueued;
use wasmhook_core::{
    Catalog, DeliveryId, DeliveryState, Dispatcher, Endpoint, EndpointId, EndpointPolicy,
    EndpointUrl, Error, EventDraft, EventId, Subscription, TenantId,
};

use crate::support::{
    At, Registry, Store, draft, endpoint, event, now, of_tenant, subscribed, with_headers,
};

fn catalog() -> Catalog {
    Catalog::new(["invoice.paid", "invoice.voided"]).unwrap()
}

fn dispatcher(registry: &Registry, store: &Store) -> Dispatcher<Registry, Store, At> {
    Dispatcher::new(catalog(), Some(registry.clone()), Some(store.clone()))
        .unwrap()
        .with_clock(At(now()))
}

/// The ids of the endpoints to which acme's `invoice.paid` goes.
async fn reached(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<String> {
    let (registry, store) = (Registry::of(endpoints), Store::default());
    dispatcher(&registry, &store)
        .dispatch(&event())
        .await
        .unwrap();
    let deliveries = store.deliveries().into_iter();
    deliveries.map(|d| d.endpoint_id.to_string()).collect()
}

/// What dispatching to this endpoint alone fails with; nothing may be enqueued then.
async fn refusal(endpoint: Endpoint) -> String {
    let (registry, store) = (Registry::of([endpoint]), Store::default());
    let error = dispatcher(&registry, &store)
        .dispatch(&event())
        .await
        .unwrap_err();
    assert!(store.deliveries().is_empty());
    error.to_string()
}

#[test]
fn construction_without_a_registry_fails_at_once() {
    let error = Dispatcher::new(catalog(), None::<Registry>, Some(Store::default())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "webhook delivery store not configured: expected an endpoint registry"
    );
}

#[test]
fn construction_without_a_store_fails_at_once() {
    let error = Dispatcher::new(catalog(), Some(Registry::default()), None::<Store>).unwrap_err();
    assert_eq!(
        error.to_string(),
        "webhook delivery store not configured: expected a delivery store"
    );
}

#[test]
fn a_dispatcher_cannot_be_had_with_an_empty_catalog() {
    let error = Catalog::new([""; 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unsupported webhook event: the catalog is empty; expected at least one event type"
    );
}

#[tokio::test]
async fn an_event_outside_the_catalog_is_refused_before_any_endpoint_is_listed() {
    let (registry, store) = (Registry::of([endpoint("main")]), Store::default());
    let draft = EventDraft {
        event_type: "invoice.drafted".into(),
        ..draft()
    };
    let error = dispatcher(&registry, &store)
        .dispatch_draft(draft)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unsupported webhook event: type `invoice.drafted` is not in the catalog"
    );
    assert!(registry.journal.lines().is_empty());
    assert!(store.deliveries().is_empty());
}

#[tokio::test]
async fn an_invalid_event_is_told_so_before_the_catalog_is_asked() {
    let (registry, store) = (Registry::default(), Store::default());
    let draft = EventDraft {
        id: " ".into(),
        event_type: "invoice.drafted".into(),
        ..draft()
    };
    let error = dispatcher(&registry, &store)
        .dispatch_draft(draft)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidEvent(_)), "{error}");
}

#[tokio::test]
async fn a_draft_is_normalised_before_the_catalog_and_the_registry_see_it() {
    let (registry, store) = (Registry::of([endpoint("main")]), Store::default());
    let draft = EventDraft {
        id: " evt_1\n".into(),
        tenant: " acme ".into(),
        event_type: "\tinvoice.paid ".into(),
        ..draft()
    };
    dispatcher(&registry, &store)
        .dispatch_draft(draft)
        .await
        .unwrap();
    assert_eq!(registry.journal.lines(), ["list acme invoice.paid"]);
    assert_eq!(store.deliveries()[0].event_id.as_str(), "evt_1");
}

#[tokio::test]
async fn a_payload_above_the_limit_is_refused() {
    let (registry, store) = (Registry::of([endpoint("main")]), Store::default());
    let error = dispatcher(&registry, &store)
        .with_max_payload(4)
        .dispatch_draft(draft())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidEvent(_)), "{error}");
}

#[tokio::test]
async fn only_enabled_endpoints_of_the_tenant_that_subscribe_are_reached() {
    let disabled = Endpoint {
        disabled: true,
        ..endpoint("disabled")
    };
    let both = Endpoint {
        events: ["invoice.voided", "invoice.paid"]
            .map(|name| Subscription::new(name).unwrap())
            .to_vec(),
        ..endpoint("both")
    };
    let reached = reached([
        endpoint("wildcard"),
        subscribed("exact", "invoice.paid"),
        both,
        disabled,
        subscribed("other-type", "invoice.voided"),
        subscribed("other-case", "Invoice.Paid"),
        subscribed("prefix", "invoice"),
        of_tenant("globex", endpoint("other-tenant")),
    ])
    .await;
    assert_eq!(reached, ["both", "exact", "wildcard"]);
}

#[tokio::test]
async fn an_event_that_nobody_wants_is_dispatched_to_nobody() {
    let (registry, store) = (Registry::default(), Store::default());
    let enqueued = dispatcher(&registry, &store)
        .dispatch(&event())
        .await
        .unwrap();
    assert_eq!(
        enqueued,
        Enqueued {
            created: 0,
            duplicate: false
        }
    );
}

#[tokio::test]
async fn each_matching_endpoint_is_validated() {
    let without_secret = Endpoint {
        secrets: vec![],
        ..endpoint("main")
    };
    let insecure = Endpoint {
        url: EndpointUrl::new("http://receiver.example/").unwrap(),
        ..endpoint("main")
    };
    assert_eq!(
        refusal(without_secret).await,
        "invalid webhook endpoint: field `secrets`: expected at least one signing secret"
    );
    assert_eq!(
        refusal(insecure).await,
        "invalid webhook endpoint: field `url`: expected https, for insecure http is not allowed here"
    );
}

#[test]
fn an_endpoint_without_subscriptions_is_invalid() {
    let endpoint = Endpoint {
        events: vec![],
        ..endpoint("main")
    };
    assert_eq!(
        endpoint
            .validate(EndpointPolicy::default())
            .unwrap_err()
            .to_string(),
        "invalid webhook endpoint: field `events`: expected at least one event type or *"
    );
}

#[tokio::test]
async fn one_invalid_endpoint_keeps_all_deliveries_of_the_event_from_being_made() {
    let invalid = Endpoint {
        secrets: vec![],
        ..endpoint("second")
    };
    let (registry, store) = (Registry::of([endpoint("first"), invalid]), Store::default());
    let result = dispatcher(&registry, &store).dispatch(&event()).await;
    assert!(matches!(result, Err(Error::InvalidEndpoint(_))));
    assert!(store.deliveries().is_empty());
}

#[tokio::test]
async fn an_invalid_endpoint_that_does_not_match_disturbs_nobody() {
    let invalid = Endpoint {
        secrets: vec![],
        ..subscribed("broken", "invoice.voided")
    };
    assert_eq!(reached([invalid, endpoint("main")]).await, ["main"]);
}

#[tokio::test]
async fn plain_http_is_reached_where_the_policy_allows_it() {
    let insecure = Endpoint {
        url: EndpointUrl::new("http://127.0.0.1:9000/hooks").unwrap(),
        ..endpoint("main")
    };
    let (registry, store) = (Registry::of([insecure]), Store::default());
    let enqueued = dispatcher(&registry, &store)
        .with_policy(EndpointPolicy {
            allow_insecure_http: true,
        })
        .dispatch(&event())
        .await
        .unwrap();
    assert_eq!(enqueued.created, 1);
}

#[tokio::test]
async fn a_delivery_is_pending_due_now_and_made_now() {
    let (registry, store) = (
        Registry::of([with_headers(endpoint("main"), &[("x-env", "test")])]),
        Store::default(),
    );
    let event = event();
    dispatcher(&registry, &store)
        .dispatch(&event)
        .await
        .unwrap();
    let deliveries = store.deliveries();
    let [delivery] = deliveries.as_slice() else {
        panic!("expected one delivery, found {deliveries:?}");
    };
    assert_eq!(
        delivery.id.as_str(),
        "whdel_5fe54a7806badae94ec7332ad4a45386"
    );
    assert_eq!(delivery.tenant_id, event.tenant_id);
    assert_eq!(delivery.event_id, event.id);
    assert_eq!(delivery.event_type, event.event_type);
    assert_eq!(delivery.endpoint_id.as_str(), "main");
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert_eq!(delivery.attempt, 0);
    assert_eq!(delivery.resolved, None);
    assert_eq!(
        [delivery.next_at, delivery.created_at, delivery.updated_at],
        [now(); 3]
    );
}

#[tokio::test]
async fn the_job_of_a_delivery_names_delivery_endpoint_and_event_and_no_secret() {
    let (registry, store) = (Registry::of([endpoint("main")]), Store::default());
    let event = event();
    dispatcher(&registry, &store)
        .dispatch(&event)
        .await
        .unwrap();
    let delivery = &store.deliveries()[0];
    let job = delivery.job(&event);
    assert_eq!((&job.id, &job.tenant_id), (&delivery.id, &event.tenant_id));
    assert_eq!(job.attempt, 0);
    assert_eq!(
        String::from_utf8(job.payload.encode().unwrap()).unwrap(),
        concat!(
            r#"{"delivery_id":"whdel_5fe54a7806badae94ec7332ad4a45386","endpoint_id":"main","#,
            r#""event":{"id":"evt_1","tenant_id":"acme","type":"invoice.paid","#,
            r#""payload":"{\"total\":1.00, \"n\":1e2}","occurred_at":"2026-03-01T10:00:00Z"}}"#
        )
    );
}

#[tokio::test]
async fn an_event_that_does_not_say_when_happened_when_it_was_dispatched() {
    let draft = EventDraft {
        occurred_at: None,
        ..draft()
    };
    let event = draft.accept(now(), 1024).unwrap();
    assert_eq!(event.occurred_at, now());
}

#[tokio::test]
async fn the_function_that_makes_ids_can_be_replaced() {
    fn custom(tenant: &TenantId, event: &EventId, endpoint: &EndpointId) -> DeliveryId {
        DeliveryId::new(format!("{tenant}-{event}-{endpoint}")).unwrap()
    }
    let (registry, store) = (Registry::of([endpoint("main")]), Store::default());
    dispatcher(&registry, &store)
        .with_delivery_id(custom)
        .dispatch(&event())
        .await
        .unwrap();
    assert_eq!(store.deliveries()[0].id.as_str(), "acme-evt_1-main");
}

#[tokio::test]
async fn pushing_an_event_again_makes_no_second_delivery() {
    let (registry, store) = (
        Registry::of([endpoint("main"), endpoint("backup")]),
        Store::default(),
    );
    let dispatcher = dispatcher(&registry, &store);
    let first = dispatcher.dispatch_draft(draft()).await.unwrap();
    let again = dispatcher.dispatch_draft(draft()).await.unwrap();
    assert_eq!((first.created, first.duplicate), (2, false));
    assert_eq!((again.created, again.duplicate), (0, true));
    assert_eq!(store.deliveries().len(), 2);
}

#[tokio::test]
async fn one_event_id_of_two_tenants_is_two_events() {
    let (registry, store) = (
        Registry::of([endpoint("main"), of_tenant("globex", endpoint("main"))]),
        Store::default(),
    );
    let dispatcher = dispatcher(&registry, &store);
    dispatcher.dispatch_draft(draft()).await.unwrap();
    let other = EventDraft {
        tenant: "globex".into(),
        ..draft()
    };
    assert_eq!(dispatcher.dispatch_draft(other).await.unwrap().created, 1);
    let deliveries = store.deliveries();
    assert_ne!(deliveries[0].id, deliveries[1].id);
}

#[tokio::test]
async fn an_endpoint_listed_twice_gets_one_delivery() {
    assert_eq!(
        reached([endpoint("main"), endpoint("main")]).await,
        ["main"]
    );
}

#[test]
fn a_plan_refuses_another_tenants_endpoint() {
    let target = Target {
        endpoint: Arc::new(of_tenant("globex", endpoint("main"))),
        resolved: None,
    };
    let error = plan(
        &event(),
        [target],
        EndpointPolicy::default(),
        wasmhook_core::delivery::default_id,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "webhook tenant mismatch: the endpoint is another tenant's"
    );
}
