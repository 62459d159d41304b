//! Signs as GitHub, Stripe or Shopify do, for receivers that verify those.
//!
//! Configuration: `style`, which is `github`, `stripe` or `shopify`. The endpoint says `profile = "plugin"`
//! and names this plugin as its `signer`; its secrets are texts. The plugin never sees them: it names
//! one, and the host does the HMAC.

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "signer" });

use exports::wasmhook::plugin::sign::{Guest, UnsignedRequest};
use wasmhook::plugin::signing::{Hash, KeyForm};
use wasmhook::plugin::types::{Endpoint, Failure};
use wasmhook::plugin::{config, signing};

type Headers = Vec<(String, String)>;

struct SignAs;

impl Guest for SignAs {
    fn sign(_endpoint: Endpoint, request: UnsignedRequest) -> Result<Headers, Failure> {
        match config::get("style").as_deref() {
            Some("github") => github(&request),
            Some("stripe") => stripe(&request),
            Some("shopify") => shopify(&request),
            _ => Err(failure("the configuration names no style that is known")),
        }
    }
}

/// `X-Hub-Signature-256: sha256=<hex>` over the body, by the first secret: there is room for one.
fn github(request: &UnsignedRequest) -> Result<Headers, Failure> {
    let mac = hmac(&first_key()?, &request.body)?;
    Ok(vec![
        header("X-GitHub-Delivery", &request.delivery_id),
        header("X-GitHub-Event", &request.event_type),
        header("X-Hub-Signature-256", &format!("sha256={}", hex(&mac))),
    ])
}

/// `Stripe-Signature: t=<time>,v1=<hex>` over time and body, with one `v1` for each secret.
fn stripe(request: &UnsignedRequest) -> Result<Headers, Failure> {
    let mut signed = format!("{}.", request.timestamp).into_bytes();
    signed.extend_from_slice(&request.body);
    let mut signature = format!("t={}", request.timestamp);
    for key in signing::keys() {
        signature.push_str(",v1=");
        signature.push_str(&hex(&hmac(&key, &signed)?));
    }
    Ok(vec![header("Stripe-Signature", &signature)])
}

/// `X-Shopify-Hmac-Sha256: <base64>` over the body, by the first secret.
fn shopify(request: &UnsignedRequest) -> Result<Headers, Failure> {
    let mac = hmac(&first_key()?, &request.body)?;
    Ok(vec![
        header("X-Shopify-Webhook-Id", &request.delivery_id),
        header("X-Shopify-Topic", &request.event_type),
        header("X-Shopify-Hmac-Sha256", &base64(&mac)),
    ])
}

fn first_key() -> Result<String, Failure> {
    let key = signing::keys().into_iter().next();
    key.ok_or_else(|| failure("the endpoint names no secret"))
}

fn hmac(key: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
    signing::hmac(key, KeyForm::Text, Hash::Sha256, data)
        .map_err(|_| failure("a secret of the endpoint is no text"))
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn failure(message: &str) -> Failure {
    Failure {
        retryable: true,
        message: message.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = [0, 1, 2].map(|at| u32::from(*chunk.get(at).unwrap_or(&0)));
        let group = group[0] << 16 | group[1] << 8 | group[2];
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) & 0x3f;
            let is_padding = digit > chunk.len();
            text.push(if is_padding {
                '='
            } else {
                DIGITS[index as usize].into()
            });
        }
    }
    text
}

export!(SignAs);
