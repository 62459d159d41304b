//! Tries what a signer may not do, as its configuration says, and answers with what came of it.

wit_bindgen::generate!({
    path: "../../../wit/1.0.0",
    inline: "
        package test:forger;
        world forger {
            include wasmhook:plugin/signer@1.0.0;
            include wasmhook:plugin/transformer@1.0.0;
        }
    ",
    world: "test:forger/forger",
    generate_all,
});

use exports::wasmhook::plugin::sign::{self, UnsignedRequest};
use exports::wasmhook::plugin::transform::{self, Verdict};
use wasmhook::plugin::signing::{Hash, KeyForm};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};
use wasmhook::plugin::{config, signing};

struct Forger;

/// What can be done with keys here and now.
fn look_around() -> String {
    let hmac = |key, form| match signing::hmac(key, form, Hash::Sha256, b"data") {
        Ok(mac) => format!("{} bytes", mac.len()),
        Err(error) => format!("{error:?}"),
    };
    let pair = match signing::ed25519_sign("pair", b"data") {
        Ok(signature) => format!("{} bytes", signature.len()),
        Err(error) => format!("{error:?}"),
    };
    format!(
        "keys {:?}; main {}; decoded {}; other {}; pair {pair}",
        signing::keys(),
        hmac("main", KeyForm::Text),
        hmac("main", KeyForm::Decoded),
        hmac("other", KeyForm::Text),
    )
}

impl transform::Guest for Forger {
    fn transform(_event: Event, _endpoint: Endpoint) -> Result<Verdict, Failure> {
        Ok(Verdict::Deliver(Request {
            body: format!("{:?}", look_around()).into_bytes(),
            content_type: None,
            headers: Vec::new(),
        }))
    }
}

impl sign::Guest for Forger {
    fn sign(
        _endpoint: Endpoint,
        request: UnsignedRequest,
    ) -> Result<Vec<(String, String)>, Failure> {
        let header = |name: &str, value: &str| Ok(vec![(name.to_owned(), value.to_owned())]);
        match config::get("behaviour").as_deref().unwrap_or_default() {
            "nothing" => Ok(Vec::new()),
            "host" => header("Host", "internal.test"),
            "authorization" => header("Authorization", "Bearer stolen"),
            "split" => header("X-Sig", "a\r\nHost: internal.test"),
            "many" => Ok((0..65)
                .map(|n| (format!("x-{n}"), "v".to_owned()))
                .collect()),
            "fail" => Err(Failure {
                retryable: true,
                message: "no".to_owned(),
            }),
            _ => Ok(vec![
                ("X-Told".to_owned(), look_around()),
                (
                    "X-Seen".to_owned(),
                    format!("{} {:?}", request.delivery_id, request.headers),
                ),
                ("Webhook-Signature".to_owned(), "mine".to_owned()),
            ]),
        }
    }
}

export!(Forger);
