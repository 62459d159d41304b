//! Signatures: Standard Webhooks 1.0 (`v1`, `v1a`) and the contract's `sha256` profile.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::secret::SigningSecret;

/// Header that carries the delivery id (Standard Webhooks).
pub const ID_HEADER: &str = "webhook-id";
/// Header that carries the attempt's time in unix seconds (Standard Webhooks).
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header that carries the signatures (Standard Webhooks).
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far a receiver lets the signed time differ from its own, in seconds (Standard Webhooks).
pub const TOLERANCE_SECONDS: i64 = 300;

fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The value of `webhook-signature`: one entry for each secret, separated by exactly one space,
/// over `{id}.{timestamp}.{body}`.
///
/// Fails (`invalid webhook endpoint`) when there is no secret or one is not of a Standard Webhooks
/// form.
pub fn standard<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> Result<String> {
    let prefix = format!("{id}.{}.", at.as_second());
    let mut header = String::with_capacity(48);
    for secret in secrets {
        secret.check_standard()?;
        if !header.is_empty() {
            header.push(' ');
        }
        if let Some(key) = secret.symmetric() {
            let mut mac = hmac_sha256(key);
            mac.update(prefix.as_bytes());
            mac.update(body);
            header.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut header);
        } else if let Some(key) = secret.asymmetric() {
            // ed25519 reads its message twice, so it needs it in one piece.
            let mut message = Vec::with_capacity(prefix.len() + body.len());
            message.extend_from_slice(prefix.as_bytes());
            message.extend_from_slice(body);
            header.push_str("v1a,");
            STANDARD.encode_string(key.sign(&message).to_bytes(), &mut header);
        }
    }
    if header.is_empty() {
        return Err(Error::endpoint_field(
            "secrets",
            "expected at least one signing secret",
        ));
    }
    Ok(header)
}

/// The value of the `sha256` profile's signature header: `sha256=` and the lower-case hex HMAC of
/// the body.
///
/// Fails (`invalid webhook endpoint`) for an ed25519 secret, which this profile cannot use.
pub fn sha256(secret: &SigningSecret, body: &[u8]) -> Result<String> {
    let key = secret.text().ok_or_else(|| {
        Error::endpoint_field(
            "secret",
            "expected a text or whsec_ secret for the sha256 signature profile",
        )
    })?;
    let mut mac = hmac_sha256(key);
    mac.update(body);
    Ok(format!(
        "sha256={}",
        hex::encode(mac.finalize().into_bytes())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const KEY: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn the_published_v1_vectors_come_out() {
        let cases = [
            (
                FIRST,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ];
        for (key, id, second, body, expected) in cases {
            let signed = standard([&secret(key)], id, at(second), body.as_bytes()).unwrap();
            assert_eq!(signed, expected);
        }
    }

    #[test]
    fn the_published_v1a_vector_comes_out() {
        let signed = standard(
            [&secret(KEY)],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            at(1_614_265_330),
            br#"{"test": 2432232314}"#,
        )
        .unwrap();
        assert_eq!(
            signed,
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        );
    }

    #[test]
    fn a_rotation_is_separated_by_exactly_one_space() {
        let (one, two) = (secret(FIRST), secret(KEY));
        let signed = standard([&one, &two], "id", at(1), b"{}").unwrap();
        let parts: Vec<_> = signed.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert!(
            parts[0].starts_with("v1,") && parts[1].starts_with("v1a,"),
            "{signed}"
        );
    }

    #[test]
    fn nothing_is_sent_unsigned() {
        assert!(standard([], "id", at(1), b"{}").is_err());
        assert!(standard([&secret("plain")], "id", at(1), b"{}").is_err());
        assert!(sha256(&secret(KEY), b"{}").is_err());
    }

    #[test]
    fn the_sha256_profile_is_a_plain_hmac_over_the_body() {
        // RFC 4231, test case 2.
        assert_eq!(
            sha256(&secret("Jefe"), b"what do ya want for nothing?").unwrap(),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn the_published_verifier_accepts_what_is_signed() {
        let now = Timestamp::now();
        let body = br#"{"a":1}"#;
        let mut headers = http::HeaderMap::new();
        headers.insert(ID_HEADER, "whdel_1".parse().unwrap());
        headers.insert(
            TIMESTAMP_HEADER,
            now.as_second().to_string().parse().unwrap(),
        );
        headers.insert(
            SIGNATURE_HEADER,
            standard([&secret(FIRST)], "whdel_1", now, body)
                .unwrap()
                .parse()
                .unwrap(),
        );
        standardwebhooks::Webhook::new(FIRST)
            .unwrap()
            .verify(body, &headers)
            .unwrap();
    }
}
