//! Turns at something scarce: one tenant after the other, whatever the number that each has waiting.
//!
//! Compilers take turns by the component, and guests that run for long by the tick of the clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Gives out a bounded number of turns. Tenants get them in rotation, and none has two at once.
pub(crate) struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Tenants with someone waiting and no turn, next first.
    rotation: VecDeque<Arc<str>>,
    tenants: HashMap<Arc<str>, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    holds: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A tenant's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    state: Arc<Mutex<State>>,
    tenant: Arc<str>,
}

impl Turns {
    /// `turns` at once, at least one.
    pub(crate) fn new(turns: usize) -> Self {
        let state = State {
            free: turns.max(1),
            rotation: VecDeque::new(),
            tenants: HashMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Wait for the tenant's turn. Whoever gives up waiting leaves the queue.
    pub(crate) async fn wait(&self, tenant: &Arc<str>) -> Option<Turn> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            let entry = state.tenants.entry(Arc::clone(tenant)).or_default();
            let in_rotation = entry.holds || !entry.waiting.is_empty();
            entry.waiting.push_back(sender);
            if !in_rotation {
                state.rotation.push_back(Arc::clone(tenant));
            }
        }
        hand_out(&self.state);
        // The sender is kept until the turn is given.
        receiver.await.ok()
    }
}

/// Give the free turns to the tenants that are next.
fn hand_out(shared: &Arc<Mutex<State>>) {
    loop {
        let Some((sender, turn)) = next(shared) else {
            return;
        };
        // Whoever gave up meanwhile drops the turn, which frees it again.
        drop(sender.send(turn));
    }
}

fn next(shared: &Arc<Mutex<State>>) -> Option<(oneshot::Sender<Turn>, Turn)> {
    let mut guard = lock(shared);
    let state = &mut *guard;
    while state.free > 0 {
        let tenant = state.rotation.pop_front()?;
        let entry = state.tenants.get_mut(&tenant)?;
        while let Some(sender) = entry.waiting.pop_front() {
            if sender.is_closed() {
                continue;
            }
            entry.holds = true;
            state.free -= 1;
            let turn = Turn {
                state: Arc::clone(shared),
                tenant,
            };
            return Some((sender, turn));
        }
        state.tenants.remove(&tenant);
    }
    None
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.free += 1;
            let waits = state.tenants.get_mut(&self.tenant).is_some_and(|entry| {
                entry.holds = false;
                !entry.waiting.is_empty()
            });
            if waits {
                state.rotation.push_back(Arc::clone(&self.tenant));
            } else {
                state.tenants.remove(&self.tenant);
            }
        }
        hand_out(&self.state);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future<Output = Option<Turn>> + ?Sized>(future: Pin<&mut F>) -> Option<Turn> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => turn,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_tenant_with_many_plugins_does_not_hold_up_one_with_a_single_one() {
        let turns = Turns::new(1);
        let (greedy, modest): (Arc<str>, Arc<str>) = ("greedy".into(), "modest".into());
        let mut first = pin!(turns.wait(&greedy));
        let mut second = pin!(turns.wait(&greedy));
        let mut third = pin!(turns.wait(&greedy));
        let mut other = pin!(turns.wait(&modest));
        let turn = poll(first.as_mut()).expect("the first comes at once");
        for waiting in [&mut second, &mut third, &mut other] {
            assert!(poll(waiting.as_mut()).is_none());
        }
        drop(turn);
        let turn = poll(other.as_mut()).expect("the other tenant is next");
        assert!(poll(second.as_mut()).is_none());
        drop(turn);
        let turn = poll(second.as_mut()).expect("and then the first one again");
        drop(turn);
        assert!(poll(third.as_mut()).is_some());
    }

    #[test]
    fn a_tenant_has_one_turn_at_a_time_and_who_gives_up_blocks_no_one() {
        let turns = Turns::new(2);
        let tenant: Arc<str> = "a".into();
        let turn = poll(pin!(turns.wait(&tenant))).expect("free");
        let mut abandoned = Box::pin(turns.wait(&tenant));
        let mut patient = pin!(turns.wait(&tenant));
        assert!(poll(abandoned.as_mut()).is_none() && poll(patient.as_mut()).is_none());
        drop(abandoned);
        drop(turn);
        assert!(poll(patient.as_mut()).is_some());
        let state = lock(&turns.state);
        assert_eq!(
            (state.free, state.tenants.len()),
            (2, 0),
            "nothing is left behind"
        );
    }
}
