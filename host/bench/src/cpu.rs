//! Processor time of a process, as Linux counts it.

use anyhow::Context as _;

/// Ticks per second of `/proc/<pid>/stat`: 100 on every Linux that we know of (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has used, system time included.
pub(crate) fn seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("cannot read the processor time of process {pid}"))?;
    // The name, in parentheses, may hold spaces; what follows does not.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    let (user, system) = ticks(11)
        .zip(ticks(12))
        .context("the processor time is not where it is expected")?;
    Ok((user + system) / TICKS_PER_SECOND)
}
