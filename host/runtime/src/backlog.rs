//! Work for threads that may block, done by a few of them however much there is: a host that starts with
//! thousands of plugins would otherwise hand each piece to another thread, of hundreds that have memory of their
//! own each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

type Piece = Box<dyn FnOnce() + Send>;

/// Pieces of work, begun in the order in which they came. Needs a Tokio runtime.
pub(crate) struct Backlog(Arc<Mutex<State>>);

struct State {
    waiting: VecDeque<Piece>,
    /// How many threads more may begin.
    free: usize,
}

impl Backlog {
    /// One that so many threads work off.
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            waiting: VecDeque::new(),
            free: threads,
        })))
    }

    /// Have something done, and wait for what comes of it; `None` if it panicked, or the runtime ends. It is left
    /// undone if nobody waits any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.add(move || {
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        receiver.await.ok()
    }

    /// Have something done.
    pub(crate) fn add(&self, work: impl FnOnce() + Send + 'static) {
        {
            let mut state = lock(&self.0);
            state.waiting.push_back(Box::new(work));
            if state.free == 0 {
                return;
            }
            state.free -= 1;
        }
        let hand = Hand(Some(Arc::clone(&self.0)));
        drop(spawn_blocking(move || hand.work()));
    }
}

/// A thread that works, or is about to.
struct Hand(Option<Arc<Mutex<State>>>);

impl Hand {
    fn work(mut self) {
        while let Some(piece) = self.next() {
            // What it says is with the panic hook, and the others are not to go without a thread.
            let _ = catch_unwind(AssertUnwindSafe(piece));
        }
    }

    fn next(&mut self) -> Option<Piece> {
        let mut state = lock(self.0.as_ref()?);
        let piece = state.waiting.pop_front();
        if piece.is_none() {
            // In the same step as the look, or what is added in between would wait for ever.
            state.free += 1;
            drop(state);
            self.0 = None;
        }
        piece
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // It never began, because the runtime ends. What waits may hold whom this belongs to.
        if let Some(state) = self.0.take() {
            let waiting = {
                let mut state = lock(&state);
                state.free += 1;
                std::mem::take(&mut state.waiting)
            };
            drop(waiting);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everything_is_done_once_and_no_more_at_once_than_there_are_threads() {
        const THREADS: usize = 3;
        let backlog = Arc::new(Backlog::new(THREADS));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..2_000_usize)
            .map(|number| {
                let backlog = Arc::clone(&backlog);
                let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        number
                    };
                    backlog.run(work).await
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number));
        }
        assert!((1..=THREADS).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_that_does_not_come_and_keeps_nothing_else_from_being_done() {
        let backlog = Backlog::new(1);
        for _ in 0..3 {
            assert_eq!(backlog.run(|| panic!("on purpose")).await, None::<()>);
        }
        assert_eq!(backlog.run(|| 7).await, Some(7));
    }

    #[test]
    fn what_waits_when_the_runtime_ends_is_let_go() {
        let backlog = Arc::new(Backlog::new(1));
        let holds_itself = Arc::clone(&backlog);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        backlog.add(move || drop(holds_itself));
        assert_eq!(Arc::strong_count(&backlog), 1);
    }
}
