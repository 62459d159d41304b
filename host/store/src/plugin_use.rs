//! Plugins that ran, packed.
//!
//! Postcard does not describe itself, so a field cannot be added to what is there: the verdicts, which
//! came later, stand behind everything else. A host of an older version leaves them unread, and what such
//! a host wrote has none.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasmhook_core::PluginUse;

/// What every version writes.
#[derive(Serialize, Deserialize)]
pub(crate) struct PackedUse {
    name: String,
    digest: String,
    cpu_us: u64,
}

/// What a plugin decided, if that is known.
pub(crate) type PackedVerdict = Option<String>;

impl From<&PluginUse> for PackedUse {
    fn from(used: &PluginUse) -> Self {
        Self {
            name: used.name.clone(),
            digest: used.digest.clone(),
            cpu_us: used.cpu_us,
        }
    }
}

impl PackedUse {
    pub(crate) fn unpack(self, verdict: PackedVerdict) -> PluginUse {
        PluginUse {
            name: self.name,
            digest: self.digest,
            cpu_us: self.cpu_us,
            verdict,
        }
    }
}

/// The verdicts of plugins, in their order.
pub(crate) fn verdicts(uses: &[PluginUse]) -> Vec<PackedVerdict> {
    uses.iter().map(|used| used.verdict.clone()).collect()
}

/// Plugins with their verdicts, of which the last may be missing.
pub(crate) fn unpack(packed: Vec<PackedUse>, verdicts: Vec<PackedVerdict>) -> Vec<PluginUse> {
    let verdicts = verdicts.into_iter().chain(std::iter::repeat(None));
    packed
        .into_iter()
        .zip(verdicts)
        .map(|(packed, verdict)| packed.unpack(verdict))
        .collect()
}

/// One plugin as bytes.
pub(crate) fn one_to_bytes(used: &PluginUse) -> postcard::Result<Vec<u8>> {
    postcard::to_stdvec(&(PackedUse::from(used), &used.verdict))
}

/// One plugin from bytes.
pub(crate) fn one_from_bytes(bytes: &[u8]) -> postcard::Result<PluginUse> {
    let (packed, rest): (PackedUse, _) = postcard::take_from_bytes(bytes)?;
    Ok(packed.unpack(behind(rest)?))
}

/// Several plugins as bytes.
pub(crate) fn to_bytes(uses: &[PluginUse]) -> postcard::Result<Vec<u8>> {
    let packed: Vec<PackedUse> = uses.iter().map(PackedUse::from).collect();
    postcard::to_stdvec(&(packed, verdicts(uses)))
}

/// Several plugins from bytes.
pub(crate) fn from_bytes(bytes: &[u8]) -> postcard::Result<Vec<PluginUse>> {
    let (packed, rest): (Vec<PackedUse>, _) = postcard::take_from_bytes(bytes)?;
    Ok(unpack(packed, behind(rest)?))
}

/// What stands behind the rest, if anything does.
pub(crate) fn behind<T: DeserializeOwned + Default>(rest: &[u8]) -> postcard::Result<T> {
    if rest.is_empty() {
        return Ok(T::default());
    }
    postcard::from_bytes(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 0.1.0 wrote, field for field.
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Before {
        name: String,
        digest: String,
        cpu_us: u64,
    }

    fn used(name: &str, verdict: Option<&str>) -> PluginUse {
        PluginUse {
            name: name.to_owned(),
            digest: "ab".repeat(32),
            cpu_us: 300,
            verdict: verdict.map(str::to_owned),
        }
    }

    fn before(used: &PluginUse) -> Before {
        Before {
            name: used.name.clone(),
            digest: used.digest.clone(),
            cpu_us: used.cpu_us,
        }
    }

    #[test]
    fn what_an_older_version_wrote_is_read_and_has_no_verdict() {
        let uses = [used("10-redact", None), used("20-sum", None)];
        let old: Vec<Before> = uses.iter().map(before).collect();
        let bytes = postcard::to_stdvec(&old).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), uses);
        let bytes = postcard::to_stdvec(&old[0]).unwrap();
        assert_eq!(one_from_bytes(&bytes).unwrap(), uses[0]);
    }

    #[test]
    fn an_older_version_reads_what_is_written_now() {
        let uses = [
            used("10-redact", Some("deliver")),
            used("20-sum", Some("trap")),
        ];
        let bytes = to_bytes(&uses).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), uses);
        let old: Vec<Before> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(old, uses.iter().map(before).collect::<Vec<_>>());
        let bytes = one_to_bytes(&uses[1]).unwrap();
        assert_eq!(one_from_bytes(&bytes).unwrap(), uses[1]);
        assert_eq!(
            postcard::from_bytes::<Before>(&bytes).unwrap(),
            before(&uses[1])
        );
    }
}
