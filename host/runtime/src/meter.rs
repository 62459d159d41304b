//! Counts the processor time of a guest, apart from the time it waits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time spent in one call. A guest runs only while the future of its call is polled, on the
/// polling thread, so the sum of that thread's processor time over the polls is the guest's.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls that ended.
    spent: AtomicU64,
    /// The thread's processor time when the current poll began.
    began: AtomicU64,
    /// Nanoseconds that may be spent.
    budget: AtomicU64,
    /// Set once the guest was stopped for having spent them.
    stopped: AtomicBool,
}

impl Meter {
    /// Begin a call that may spend `budget`.
    pub(crate) fn restart(&self, budget: Duration) {
        let nanos = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        self.spent.store(0, Ordering::Relaxed);
        self.budget.store(nanos, Ordering::Relaxed);
        self.stopped.store(false, Ordering::Relaxed);
    }

    /// Run `work`, counting.
    pub(crate) async fn measure<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.began.store(thread_nanos(), Ordering::Relaxed);
            let poll = work.as_mut().poll(context);
            self.spent.fetch_add(self.since_began(), Ordering::Relaxed);
            poll
        })
        .await
    }

    /// Whether the guest that runs at this moment, on this thread, has to stop.
    pub(crate) fn is_over(&self) -> bool {
        let spent = self.spent.load(Ordering::Relaxed) + self.since_began();
        let over = spent >= self.budget.load(Ordering::Relaxed);
        if over {
            self.stopped.store(true, Ordering::Relaxed);
        }
        over
    }

    /// Whether it was stopped.
    pub(crate) fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What the call has cost so far, the current poll apart.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    fn since_began(&self) -> u64 {
        thread_nanos().saturating_sub(self.began.load(Ordering::Relaxed))
    }
}

/// Processor time of this thread. It stands still while others use the core, so a busy machine takes
/// nothing from a guest's budget.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
