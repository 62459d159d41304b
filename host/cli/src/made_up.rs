//! Secrets of one run, for who has none at hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A `whsec_` secret: 32 bytes, all but a few bits of them the operating system's randomness.
pub(crate) fn secret() -> String {
    let mut key = uuid::Uuid::new_v4().into_bytes().to_vec();
    key.extend(uuid::Uuid::new_v4().into_bytes());
    format!("whsec_{}", STANDARD.encode(key))
}
