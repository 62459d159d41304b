//! Reading what a server says of its memory.

/// What a server says of its memory.
pub(super) struct ServerMemory {
    /// Tells servers apart.
    pub(super) run_id: String,
    /// In bytes.
    pub(super) used: u64,
    /// Zero for none.
    limit: u64,
}

impl ServerMemory {
    pub(super) fn read(info: &str) -> Option<Self> {
        let figure = |name: &str| -> Option<&str> {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            Some(lines.find(|(key, _)| *key == name)?.1.trim())
        };
        Some(Self {
            run_id: figure("run_id")?.to_owned(),
            used: figure("used_memory")?.parse().ok()?,
            limit: figure("maxmemory")?.parse().ok()?,
        })
    }

    /// The share of its limit that it uses.
    pub(super) fn percent(&self) -> Option<u8> {
        let percent = self.used.saturating_mul(100).checked_div(self.limit)?;
        Some(u8::try_from(percent).unwrap_or(u8::MAX))
    }
}
