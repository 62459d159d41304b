//! Counts the processor time of a guest, and apart from it the time it waits in the host.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::lane::Lane;

/// Processor time after which a guest counts as one that runs for long: a hundred times what a transform in
/// Rust takes, and twice what one in Python takes to start.
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
}

/// The guest waited in the host for longer than it may.
#[derive(Debug)]
pub(crate) struct WaitedTooLong;

/// A call whose polls are counted, on whichever thread they are.
struct Counted<F> {
    meter: Arc<Meter>,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.meter.began.store(thread_nanos(), Ordering::Relaxed);
        let poll = self.work.as_mut().poll(context);
        let spent = self.meter.since_began();
        self.meter.spent.fetch_add(spent, Ordering::Relaxed);
        poll
    }
}

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

    /// Run `work`, counting, and give it up once it has waited for `patience` in all. Here as long as it
    /// runs for short; then, or from the start if `is_long` is to be expected, in the lane.
    pub(crate) async fn measure<F>(
        self: &Arc<Self>,
        work: F,
        patience: Duration,
        lane: &Lane,
        tenant: &Arc<str>,
        is_long: bool,
    ) -> Result<F::Output, WaitedTooLong>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let mut work = Counted {
            meter: Arc::clone(self),
            work: Box::pin(work),
        };
        // Wakes who waits too long; a timer that is set anew is never over at once.
        let mut alarm = pin!(sleep(patience));
        let mut patience = patience;
        let mut waits_since: Option<Instant> = None;
        let mut is_long = is_long;
        loop {
            if is_long {
                let (back, poll) = lane.poll(tenant, work).await;
                work = back;
                match poll {
                    Poll::Ready(output) => return Ok(output),
                    Poll::Pending if self.rests() => continue,
                    // It waits in the host, and has to be polled by who is to be woken.
                    Poll::Pending => {}
                }
            }
            let ended = poll_fn(|context| {
                if let Some(since) = waits_since.take() {
                    patience = patience.saturating_sub(since.elapsed());
                    if patience.is_zero() {
                        return Poll::Ready(Err(WaitedTooLong));
                    }
                }
                match Pin::new(&mut work).poll(context) {
                    Poll::Ready(output) => Poll::Ready(Ok(Some(output))),
                    Poll::Pending if self.rests() => Poll::Ready(Ok(None)),
                    Poll::Pending => {
                        let now = Instant::now();
                        waits_since = Some(now);
                        alarm.as_mut().reset(now + patience);
                        alarm.as_mut().poll(context).map(|()| Err(WaitedTooLong))
                    }
                }
            });
            if let Some(output) = ended.await? {
                return Ok(output);
            }
            // It was interrupted.
            is_long = self.is_long();
            if !is_long {
                yield_now().await;
            }
        }
    }

    /// What an interrupted guest waits for before it runs on: to be polled again, when others had the
    /// thread. This is not its own waiting.
    pub(crate) fn rest(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.rests.store(true, Ordering::Relaxed);
        let meter = Arc::clone(self);
        let mut rested = false;
        Box::pin(poll_fn(move |_| {
            if std::mem::replace(&mut rested, true) {
                meter.rests.store(false, Ordering::Relaxed);
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }

    /// Whether the guest is interrupted, and does not wait for anything of its own.
    fn rests(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    /// Whether the call has run for long.
    fn is_long(&self) -> bool {
        self.spent() >= LONG
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
