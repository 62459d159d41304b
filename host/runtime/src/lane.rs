//! Where guests that run for long go on: threads of a low priority, so that the system gives the
//! processor to everybody else in the moment that they want it, and no delivery waits behind a guest on one
//! of the threads that deliver.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::turns::Turns;

/// How much less a guest here wants of a busy processor than others do: a tenth of a fair share. Not the idle
/// class, nor the most that can be asked for: a processor that is never idle leaves next to nothing then, and a
/// guest that needs a few milliseconds more than most is to have them within its time on the wall.
const NICENESS: i32 = 10;

/// The threads, and the turns at them: tenant by tenant.
pub(crate) struct Lane {
    turns: Turns,
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;
/// The work, given back, with what polling it said; or what it panicked with.
type Given<F> = Result<(F, Poll<<F as Future>::Output>), Box<dyn Any + Send>>;

impl Lane {
    /// Start so many threads, at least one. They end with the lane.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("plugin-lane-{number}"))
                .spawn(move || serve(&queue))?;
        }
        Ok(Self {
            turns: Turns::new(threads),
            jobs,
        })
    }

    /// Wait for the tenant's turn, poll `work` once on a thread of the lane, and give it back with what that
    /// said. Nothing wakes for what `work` waits for then: it has to be polled once more.
    ///
    /// Who gives up waiting gives up the work: it is dropped there, after the poll if it is being polled.
    pub(crate) async fn poll<F>(&self, tenant: &Arc<str>, mut work: F) -> (F, Poll<F::Output>)
    where
        F: Future + Unpin + Send + 'static,
        F::Output: Send,
    {
        let turn = self.turns.wait(tenant).await;
        let (sender, given) = oneshot::channel::<Given<F>>();
        // What the host does for the guest belongs to the runtime of whoever calls.
        let runtime = Handle::current();
        let job = move || {
            if sender.is_closed() {
                return;
            }
            let _runtime = runtime.enter();
            let polled = catch_unwind(AssertUnwindSafe(|| {
                Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop()))
            }));
            // Dropped here if nobody waits for it any more.
            let _ = sender.send(polled.map(|poll| (work, poll)));
        };
        self.jobs
            .send(Box::new(job))
            .expect("the threads live as long as the lane");
        let given = given.await.expect("a thread sends what it was given back");
        drop(turn);
        given.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn serve(queue: &Mutex<Receiver<Job>>) {
    // On Linux that is this thread alone, and elsewhere it would be all of them. Where it cannot be had, guests
    // are in the way of others as far as the system's fairness allows.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
    loop {
        // Whoever waits for a job holds the lock, and the others wait for that.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::mpsc;

    use super::*;

    fn lane() -> (Lane, Arc<str>) {
        (Lane::start(1).unwrap(), "acme".into())
    }

    #[tokio::test]
    async fn work_is_polled_on_a_thread_of_low_priority_and_given_back() {
        let (lane, tenant) = lane();
        let mut polls = 0;
        let work = poll_fn(move |_| {
            polls += 1;
            // Whoever spawns tasks finds the runtime of the caller.
            let _ = Handle::current();
            if polls == 1 {
                return Poll::Pending;
            }
            let niceness = rustix::process::getpriority_process(None);
            Poll::Ready((thread::current().name().map(str::to_owned), niceness))
        });
        let (work, poll) = lane.poll(&tenant, work).await;
        assert!(poll.is_pending());
        let (_, poll) = lane.poll(&tenant, work).await;
        let Poll::Ready((name, niceness)) = poll else {
            panic!("it was polled once");
        };
        assert_eq!(name.as_deref(), Some("plugin-lane-0"));
        assert_eq!(niceness, Ok(NICENESS));
    }

    #[tokio::test]
    async fn a_panic_is_the_callers_and_the_thread_goes_on() {
        let (lane, tenant) = lane();
        let lane = Arc::new(lane);
        let panicking = tokio::spawn({
            let (lane, tenant) = (Arc::clone(&lane), Arc::clone(&tenant));
            async move {
                let work = poll_fn(|_| -> Poll<()> { panic!("on purpose") });
                lane.poll(&tenant, work).await.1
            }
        });
        assert!(panicking.await.unwrap_err().is_panic());
        let (_, poll) = lane.poll(&tenant, ready(7)).await;
        assert_eq!(poll, Poll::Ready(7));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_dropped_and_the_turn_is_free_again() {
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (lane, tenant) = lane();
        let (sender, dropped) = mpsc::channel();
        let told = Told(sender);
        let work = Box::pin(async move {
            let _told = told;
            pending::<()>().await;
        });
        {
            let mut polled = std::pin::pin!(lane.poll(&tenant, work));
            let once = poll_fn(|context| Poll::Ready(polled.as_mut().poll(context).is_pending()));
            assert!(once.await, "nothing can have come back yet");
        }
        dropped
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("the work is kept though nobody waits for it");
        let (_, poll) = lane.poll(&tenant, ready(7)).await;
        assert_eq!(poll, Poll::Ready(7));
    }
}
