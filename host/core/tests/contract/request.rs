//! The signed request, byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use wasmhook_core::request::Content;
use wasmhook_core::{
    BodyForm, DeliveryId, Endpoint, Error, OutgoingRequest, RequestBuilder, Result, SafeHeaders,
    SignatureProfile, SigningSecret,
};

use crate::support::{draft, endpoint, event, now, with_headers};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const KEY_PAIR: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

/// The payload of [`event`].
const PAYLOAD: &str = r#"{"total":1.00, "n":1e2}"#;

fn built(endpoint: &Endpoint, secrets: &[&str], content: &Content) -> Result<OutgoingRequest> {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|text| Arc::new(SigningSecret::parse(text).unwrap()))
        .collect();
    RequestBuilder::default().build(
        &DeliveryId::new("whdel_1").unwrap(),
        &event(),
        endpoint,
        &secrets,
        content,
        now(),
    )
}

fn original(endpoint: &Endpoint, secrets: &[&str]) -> OutgoingRequest {
    built(endpoint, secrets, &Content::original(&event())).unwrap()
}

fn sha256(endpoint: Endpoint) -> Endpoint {
    Endpoint {
        profile: SignatureProfile::sha256(),
        ..endpoint
    }
}

fn enveloped(endpoint: Endpoint) -> Endpoint {
    Endpoint {
        body: BodyForm::Envelope,
        ..endpoint
    }
}

fn text(request: &OutgoingRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

/// All headers as `name: value`, sorted by name.
fn headers(request: &OutgoingRequest) -> Vec<String> {
    let mut lines: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn header<'a>(request: &'a OutgoingRequest, name: &str) -> &'a str {
    request.headers[name].to_str().unwrap()
}

#[test]
fn a_standard_request_is_the_payload_as_pushed_with_three_signature_headers() {
    let request = original(&endpoint("main"), &[SECRET]);
    assert_eq!(
        request.url.as_url().as_str(),
        "https://receiver.example/hooks"
    );
    assert_eq!(text(&request), PAYLOAD);
    assert_eq!(
        headers(&request),
        [
            "content-type: application/json",
            concat!("user-agent: wasmhook/", env!("CARGO_PKG_VERSION")),
            "webhook-id: whdel_1",
            "webhook-signature: v1,YRgfz7QcBDmrzBt4JDLeg6Qt3dtTj1BZa1+hE5pESsY=",
            "webhook-timestamp: 1772359205",
        ]
    );
}

#[test]
fn a_standard_envelope_holds_type_time_and_the_payloads_own_bytes() {
    let request = original(&enveloped(endpoint("main")), &[SECRET]);
    assert_eq!(
        text(&request),
        r#"{"type":"invoice.paid","timestamp":"2026-03-01T10:00:00Z","data":{"total":1.00, "n":1e2}}"#
    );
    assert_eq!(
        header(&request, "webhook-signature"),
        "v1,OM48ylt+0Z0F2B/nhzFx/393i0bfEkj3kD27SUsCF58="
    );
}

#[test]
fn a_sha256_request_is_the_contracts_envelope_with_the_contracts_headers() {
    let request = original(&sha256(endpoint("main")), &["plain secret"]);
    assert_eq!(
        text(&request),
        r#"{"id":"evt_1","type":"invoice.paid","payload":{"total":1.00, "n":1e2}}"#
    );
    assert_eq!(
        headers(&request),
        [
            "content-type: application/json",
            concat!("user-agent: wasmhook/", env!("CARGO_PKG_VERSION")),
            "x-signature: sha256=27cd1eed087591e9ad0d1c4906ea305faacee32fb4b3e8500ac26e83857b9800",
            "x-webhook-event-id: evt_1",
            "x-webhook-timestamp: 2026-03-01T10:00:05Z",
        ]
    );
}

#[test]
fn the_sha256_profile_keys_with_a_whsec_secret_as_written() {
    let request = original(&sha256(endpoint("main")), &[SECRET]);
    assert_eq!(
        header(&request, "x-signature"),
        "sha256=24cf0169beb63d767105c49909857a3bafe520a7dea9ed4cf58f49792781c3e8"
    );
}

#[test]
fn the_sha256_profile_has_its_own_envelope_whatever_the_body_form() {
    let plain = original(&sha256(endpoint("main")), &[SECRET]);
    let asked = original(&enveloped(sha256(endpoint("main"))), &[SECRET]);
    assert_eq!(plain.body, asked.body);
}

#[test]
fn the_names_of_the_sha256_headers_can_be_chosen() {
    let endpoint = Endpoint {
        profile: SignatureProfile::Sha256 {
            signature_header: HeaderName::from_static("x-acme-signature"),
            event_id_header: HeaderName::from_static("x-acme-event"),
            timestamp_header: HeaderName::from_static("x-acme-time"),
        },
        ..endpoint("main")
    };
    let request = original(&endpoint, &["plain secret"]);
    assert_eq!(
        headers(&request)[2..],
        [
            "x-acme-event: evt_1",
            "x-acme-signature: sha256=27cd1eed087591e9ad0d1c4906ea305faacee32fb4b3e8500ac26e83857b9800",
            "x-acme-time: 2026-03-01T10:00:05Z",
        ]
    );
}

#[test]
fn during_a_rotation_every_secret_signs_in_the_order_given() {
    let request = original(&endpoint("main"), &[SECRET, NEXT_SECRET]);
    assert_eq!(
        header(&request, "webhook-signature"),
        "v1,YRgfz7QcBDmrzBt4JDLeg6Qt3dtTj1BZa1+hE5pESsY= v1,aukex6kFwc1334E1YXdKMiB3hOkVUCv9gMtY8BKP4jk="
    );
}

#[test]
fn during_a_rotation_the_sha256_profile_signs_with_the_first_secret() {
    let request = original(&sha256(endpoint("main")), &["plain secret", NEXT_SECRET]);
    assert_eq!(
        header(&request, "x-signature"),
        "sha256=27cd1eed087591e9ad0d1c4906ea305faacee32fb4b3e8500ac26e83857b9800"
    );
}

#[test]
fn the_published_verifier_accepts_every_secret_of_a_rotation_and_no_other() {
    // The verifier compares with its own clock, so this request is signed at the real time.
    let secrets = [SECRET, NEXT_SECRET].map(|s| Arc::new(SigningSecret::parse(s).unwrap()));
    for endpoint in [endpoint("main"), enveloped(endpoint("main"))] {
        let request = RequestBuilder::default()
            .build(
                &DeliveryId::new("whdel_1").unwrap(),
                &event(),
                &endpoint,
                &secrets,
                &Content::original(&event()),
                jiff::Timestamp::now(),
            )
            .unwrap();
        for secret in [SECRET, NEXT_SECRET] {
            standardwebhooks::Webhook::new(secret)
                .unwrap()
                .verify(&request.body, &request.headers)
                .unwrap();
        }
        standardwebhooks::Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
            .unwrap()
            .verify(&request.body, &request.headers)
            .unwrap_err();
    }
}

#[test]
fn nothing_is_sent_unsigned() {
    let content = Content::original(&event());
    for (endpoint, secrets) in [
        (endpoint("main"), &[][..]),
        (endpoint("main"), &["plain secret"]),
        (endpoint("main"), &[SECRET, "plain secret"]),
        (sha256(endpoint("main")), &[]),
        (sha256(endpoint("main")), &[KEY_PAIR]),
    ] {
        let error = built(&endpoint, secrets, &content).unwrap_err();
        assert!(matches!(error, Error::InvalidEndpoint(_)), "{error}");
    }
}

#[test]
fn a_plugins_content_takes_the_place_of_the_payload() {
    let content = Content {
        body: Bytes::from_static(b"total=1.00"),
        content_type: Some(HeaderValue::from_static(
            "application/x-www-form-urlencoded",
        )),
        headers: SafeHeaders::default(),
    };
    let request = built(&endpoint("main"), &[SECRET], &content).unwrap();
    assert_eq!(text(&request), "total=1.00");
    assert_eq!(
        header(&request, "content-type"),
        "application/x-www-form-urlencoded"
    );
}

#[test]
fn a_plugins_json_goes_into_the_envelopes_with_its_own_bytes() {
    let content = Content {
        body: Bytes::from_static(b"[1.00, 2]"),
        ..Content::default()
    };
    let standard = built(&enveloped(endpoint("main")), &[SECRET], &content).unwrap();
    let sha256 = built(&sha256(endpoint("main")), &[SECRET], &content).unwrap();
    assert!(text(&standard).ends_with(r#","data":[1.00, 2]}"#));
    assert!(text(&sha256).ends_with(r#","payload":[1.00, 2]}"#));
}

#[test]
fn what_is_not_json_fits_into_no_envelope() {
    let content = Content {
        body: Bytes::from_static(b"hunter2=1"),
        ..Content::default()
    };
    for endpoint in [enveloped(endpoint("main")), sha256(endpoint("main"))] {
        let error = built(&endpoint, &[SECRET], &content).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid webhook delivery: the body must be JSON to be put into an envelope"
        );
    }
}

#[test]
fn a_plugins_headers_are_laid_over_the_endpoints() {
    let endpoint = with_headers(
        endpoint("main"),
        &[("X-Env", "test"), ("X-Region", "unknown")],
    );
    let content = Content {
        headers: SafeHeaders::new([("x-region", "eu"), ("x-made-by", "plugin")]).unwrap(),
        ..Content::original(&event())
    };
    let request = built(&endpoint, &[SECRET], &content).unwrap();
    assert_eq!(header(&request, "x-env"), "test");
    assert_eq!(header(&request, "x-made-by"), "plugin");
    let regions: Vec<_> = request.headers.get_all("x-region").iter().collect();
    assert_eq!(regions, ["eu"]);
}

#[test]
fn neither_endpoint_nor_plugin_may_set_a_header_that_the_profile_writes() {
    let profile = SignatureProfile::Sha256 {
        signature_header: HeaderName::from_static("x-acme-signature"),
        event_id_header: HeaderName::from_static("x-acme-event"),
        timestamp_header: HeaderName::from_static("x-acme-time"),
    };
    for name in ["x-acme-signature", "X-Acme-Event", "x-acme-time"] {
        let plain = Endpoint {
            profile: profile.clone(),
            ..endpoint("main")
        };
        let content = Content {
            headers: SafeHeaders::new([(name, "hunter2")]).unwrap(),
            ..Content::original(&event())
        };
        let by_endpoint = with_headers(plain.clone(), &[(name, "hunter2")]);
        for error in [
            built(&plain, &[SECRET], &content).unwrap_err(),
            built(&by_endpoint, &[SECRET], &Content::original(&event())).unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                format!(
                    "unsafe webhook header: header `{}` is reserved for the host",
                    name.to_lowercase()
                )
            );
        }
    }
}

#[test]
fn the_user_agent_can_be_chosen_and_cannot_split_the_request() {
    let build = |builder: RequestBuilder| {
        builder
            .build(
                &DeliveryId::new("whdel_1").unwrap(),
                &event(),
                &endpoint("main"),
                &[Arc::new(SigningSecret::parse(SECRET).unwrap())],
                &Content::original(&event()),
                now(),
            )
            .unwrap()
    };
    let request = build(RequestBuilder::new(" acme-hooks/2 ").unwrap());
    assert_eq!(header(&request, "user-agent"), "acme-hooks/2");
    let error = RequestBuilder::new("acme\r\nhost: evil").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unsafe webhook header: the user agent cannot be sent as a header"
    );
}

#[test]
fn every_kind_of_json_payload_is_sent_as_it_was_pushed() {
    for payload in [
        "1.00",
        "null",
        "\"\\u00e4\"",
        "[ 1 ,2 ]",
        "{\"b\":1,\"a\":2,\"a\":3}",
        "123456789012345678901234567890.10",
        " {\"spaced\": true}\n",
    ] {
        let mut pushed = draft();
        pushed.payload = Bytes::from(payload);
        let event = pushed.accept(now(), 1024).unwrap();
        let request = built(&endpoint("main"), &[SECRET], &Content::original(&event)).unwrap();
        assert_eq!(text(&request), payload);
    }
}

#[test]
fn a_requests_debug_print_shows_neither_body_nor_headers() {
    let request = original(
        &with_headers(endpoint("main"), &[("x-token", "hunter2")]),
        &[SECRET],
    );
    let print = format!("{request:?}");
    assert!(!print.contains("hunter2") && !print.contains("total") && !print.contains("v1,"));
}
