//! The display strings and codes that others rely on.

use wasmhook_core::{Context, Error};

#[test]
fn each_error_displays_the_contracts_words_then_its_context() {
    let context = || Context::words("why");
    for (error, text, code) in [
        (
            Error::InvalidEndpoint(context()),
            "invalid webhook endpoint: why",
            "invalid_endpoint",
        ),
        (
            Error::InvalidEvent(context()),
            "invalid webhook event: why",
            "invalid_event",
        ),
        (
            Error::UnsupportedEvent(context()),
            "unsupported webhook event: why",
            "unsupported_event",
        ),
        (
            Error::UnsafeHeader(context()),
            "unsafe webhook header: why",
            "unsafe_header",
        ),
        (
            Error::InvalidDelivery(context()),
            "invalid webhook delivery: why",
            "invalid_delivery",
        ),
        (
            Error::TenantMismatch(context()),
            "webhook tenant mismatch: why",
            "tenant_mismatch",
        ),
        (
            Error::DeliveryNotFound(context()),
            "webhook delivery not found: why",
            "delivery_not_found",
        ),
        (
            Error::DeliveryFailed(context()),
            "webhook delivery failed: why",
            "delivery_failed",
        ),
        (
            Error::StoreNotConfigured(context()),
            "webhook delivery store not configured: why",
            "store_not_configured",
        ),
        (
            Error::Store("the disk is full".into()),
            "webhook delivery store failed",
            "store_failed",
        ),
    ] {
        assert_eq!((error.to_string().as_str(), error.code()), (text, code));
    }
}

#[test]
fn a_context_of_a_field_names_the_field_and_the_rule() {
    assert_eq!(
        Error::InvalidEvent(Context::field("id", "expected something")).to_string(),
        "invalid webhook event: field `id`: expected something"
    );
}

#[test]
fn a_failed_store_keeps_its_cause_as_source() {
    use std::error::Error as _;
    let error = Error::Store("the disk is full".into());
    assert_eq!(error.source().unwrap().to_string(), "the disk is full");
}
