//! Counts the processor time of a guest, and apart from it the time it waits in the host.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::turns::{Turn, Turns};

/// Processor time after which a guest counts as one that runs for long: a hundred times what a
/// transform in Rust takes, twice what one in Python does.
const LONG: Duration = Duration::from_millis(4);

/// What one call spends. A guest runs only while the future of its call is polled, on the polling
/// thread, so the sum of that thread's processor time over the polls is the guest's. What passes
/// between two polls it waits in a function of the host, unless it was made to let others run.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls that ended.
    spent: AtomicU64,
    /// The thread's processor time when the current poll began.
    began: AtomicU64,
    /// Nanoseconds that may be spent.
    budget: AtomicU64,
    /// Bytes of linear memory that the instance was last seen with.
    memory: AtomicUsize,
    /// Set once the guest was stopped for having spent them.
    stopped: AtomicBool,
    /// Set while the guest is interrupted for others to run.
    rests: AtomicBool,
    /// The turn of a guest that runs for long.
    turn: Mutex<Option<Turn>>,
}

/// The guest waited in the host for longer than it may.
#[derive(Debug)]
pub(crate) struct WaitedTooLong;

impl Meter {
    /// Begin a call that may spend `budget`.
    pub(crate) fn restart(&self, budget: Duration) {
        let nanos = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        self.spent.store(0, Ordering::Relaxed);
        self.budget.store(nanos, Ordering::Relaxed);
        self.memory.store(0, Ordering::Relaxed);
        self.stopped.store(false, Ordering::Relaxed);
        self.rests.store(false, Ordering::Relaxed);
    }

    /// Run `work`, counting, and give it up once it has waited for `patience` in all.
    pub(crate) async fn measure<F: Future>(
        &self,
        patience: Duration,
        work: F,
    ) -> Result<F::Output, WaitedTooLong> {
        let mut work = pin!(work);
        // Wakes who waits too long; a timer that is set anew is never over at once.
        let mut alarm = pin!(sleep(patience));
        let mut patience = patience;
        let mut waits_since: Option<Instant> = None;
        poll_fn(|context| {
            if let Some(since) = waits_since.take() {
                patience = patience.saturating_sub(since.elapsed());
                if patience.is_zero() {
                    return Poll::Ready(Err(WaitedTooLong));
                }
            }
            self.began.store(thread_nanos(), Ordering::Relaxed);
            let poll = work.as_mut().poll(context);
            self.spent.fetch_add(self.since_began(), Ordering::Relaxed);
            if self.rests.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            // Whether it ended or waits in the host: others may run.
            drop(self.take_turn());
            if let Poll::Ready(output) = poll {
                return Poll::Ready(Ok(output));
            }
            let now = Instant::now();
            waits_since = Some(now);
            alarm.as_mut().reset(now + patience);
            alarm.as_mut().poll(context).map(|()| Err(WaitedTooLong))
        })
        .await
    }

    /// What an interrupted guest waits for before it runs on: that others had the thread, and, once it
    /// has run for long, its tenant's turn among those that do. None of this is its own waiting.
    pub(crate) fn rest(
        self: &Arc<Self>,
        lane: &Arc<Turns>,
        tenant: &Arc<str>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.rests.store(true, Ordering::Relaxed);
        let ended = self.take_turn();
        let long = self.spent() + Duration::from_nanos(self.since_began()) >= LONG;
        let (meter, lane, tenant) = (Arc::clone(self), Arc::clone(lane), Arc::clone(tenant));
        Box::pin(async move {
            drop(ended);
            yield_now().await;
            if long {
                let turn = lane.wait(&tenant).await;
                *meter.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
            }
            meter.rests.store(false, Ordering::Relaxed);
        })
    }

    fn take_turn(&self) -> Option<Turn> {
        self.turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
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

    /// Take down how much memory the instance has.
    pub(crate) fn note_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// How much memory the instance was last seen with in this call.
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
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
