//! Processor time of a process, as Linux counts it.

use anyhow::Context as _;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Seconds of processor time that a process has used, system time included. To the nanosecond: `/proc/<pid>/stat`
/// counts hundredths of a second, of which a short measurement has a few.
pub(crate) fn seconds(pid: u32) -> anyhow::Result<f64> {
    let read = || -> anyhow::Result<f64> {
        let clock: ClockId = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
        Ok(std::time::Duration::from(clock_gettime(clock)?).as_secs_f64())
    };
    read().with_context(|| format!("cannot read the processor time of process {pid}"))
}
