//! A secret cannot get out by accident.

use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use wasmhook_core::SigningSecret;

/// Fails to compile if the type implements the trait: the blanket implementation for every type and
/// the one for types with the trait are then both candidates, and `_` cannot be inferred.
macro_rules! assert_lacks {
    ($type:ty, $trait:path) => {
        const _: fn() = || {
            trait AmbiguousIf<Marker> {
                fn proof() {}
            }
            struct HasIt;
            impl<T: ?Sized> AmbiguousIf<()> for T {}
            impl<T: ?Sized + $trait> AmbiguousIf<HasIt> for T {}
            let _ = <$type as AmbiguousIf<_>>::proof;
        };
    };
}

assert_lacks!(SigningSecret, Serialize);
assert_lacks!(SigningSecret, Display);
assert_lacks!(SigningSecret, Clone);
assert_lacks!(SigningSecret, AsRef<str>);
assert_lacks!(SigningSecret, AsRef<[u8]>);

#[test]
fn no_kind_of_secret_prints_anything_of_itself() {
    for text in [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        "hunter2",
    ] {
        let secret = Arc::new(SigningSecret::parse(text).unwrap());
        assert_eq!(format!("{secret:?}"), "SigningSecret([redacted])");
        assert_eq!(
            format!("{:#?}", [secret]),
            "[\n    SigningSecret([redacted]),\n]"
        );
    }
}
