//! Names of keys. See `lua/layout.lua` for what is in them.

use wasmhook_core::{EventId, TenantId};

/// The names of one deployment's keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    shards: Vec<String>,
}

impl Keys {
    pub(super) fn new(prefix: &str, shards: u16) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards: (0..shards)
                .map(|shard| format!("{{{prefix}:{shard}}}:"))
                .collect(),
        }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The beginning of every key of a shard.
    pub(super) fn shard(&self, shard: usize) -> &str {
        &self.shards[shard]
    }

    /// Where everything of a tenant is.
    pub(super) fn shard_of(&self, tenant: &TenantId) -> usize {
        let hash = crc32(tenant.as_str().as_bytes());
        usize::try_from(hash).unwrap_or_default() % self.shards.len()
    }

    /// Set while no host need check the queue again.
    pub(super) fn checked(&self) -> String {
        format!("{}V", self.shard(0))
    }

    /// The same for hosts of layout 1, which would take what waits its turn in a sequence for lost.
    pub(super) fn checked_before_sequences(&self) -> String {
        format!("{}v", self.shard(0))
    }

    /// A pattern for `SCAN` of the keys of all shards whose letter is one of these.
    pub(super) fn pattern(&self, letters: &str) -> String {
        let mut pattern = String::from("{");
        for letter in self.prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push_str(":*}:[");
        pattern.push_str(letters);
        pattern.push_str("]:*");
        pattern
    }

    /// What every host of the deployment must agree on.
    pub(super) fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    /// The refused events.
    pub(super) fn rejected(&self) -> String {
        format!("{}:rejected", self.prefix)
    }

    /// Where hosts hear of work.
    pub(super) fn wake_channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    /// The shard whose prefix a text begins with, and what follows the prefix.
    pub(super) fn shard_named<'a>(&self, text: &'a str) -> Option<(usize, &'a str)> {
        self.shards
            .iter()
            .enumerate()
            .find_map(|(shard, prefix)| Some((shard, text.strip_prefix(prefix.as_str())?)))
    }

    /// The packed event.
    pub(super) fn event(&self, tenant: &TenantId, event: &EventId) -> String {
        let shard = self.shard(self.shard_of(tenant));
        format!("{shard}e:{tenant}\0{event}")
    }

    /// The record of a delivery.
    pub(super) fn delivery(&self, tenant: &TenantId, delivery: &str) -> String {
        let shard = self.shard(self.shard_of(tenant));
        format!("{shard}d:{tenant}\0{delivery}")
    }

    /// The set of a shard's tenants.
    pub(super) fn tenants(&self, shard: usize) -> String {
        format!("{}T", self.shard(shard))
    }
}

/// CRC-32 (IEEE), the same wherever it is computed.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0xEDB8_8320 & mask);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_stays_in_its_shard() {
        // The check value of CRC-32; if it changed, every tenant would move.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let keys = Keys::new("wasmhook", 4);
        let acme = TenantId::new("acme").unwrap();
        let expected = usize::try_from(crc32(b"acme") % 4).unwrap();
        assert_eq!(keys.shard_of(&acme), expected);
        let event = EventId::new("evt_1").unwrap();
        assert!(keys.event(&acme, &event).starts_with(keys.shard(expected)));
    }
}
