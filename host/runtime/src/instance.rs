//! One running instance of a plugin, and the ones kept for the next call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::{classify, sign};
use crate::config::Reuse;
use crate::engine::{IdleRoom, PAGE, Shared};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::state::State;
use crate::v0_1::{Resolve, ResolveIndices, Transform, TransformIndices};

/// Ticks of the clock between two looks at a running guest.
const LOOK_EVERY: u64 = 1;

/// The exported interfaces' names.
pub(crate) const TRANSFORM: &str = "wasmhook:plugin/transform@1.0.0";
pub(crate) const RESOLVE: &str = "wasmhook:plugin/resolve@1.0.0";
pub(crate) const CLASSIFY: &str = "wasmhook:plugin/classify@1.0.0";
pub(crate) const SIGN: &str = "wasmhook:plugin/sign@1.0.0";

/// Says in an error's chain that an interface has other types than the contract's.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} has other functions or types than the contract's")]
pub(crate) struct WrongSignature(pub(crate) &'static str);

/// What is instantiated: shared by all tenants that have the same bytes, as it holds nothing of theirs.
pub(crate) struct Linked {
    pub(crate) pre: InstancePre<State>,
    pub(crate) transform: Option<TransformIndices>,
    pub(crate) resolve: Option<ResolveIndices>,
    pub(crate) classify: Option<classify::GuestIndices>,
    pub(crate) sign: Option<sign::GuestIndices>,
}

/// A store prepared for one plugin, before or after its component was started in it.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) guest: Option<Guest>,
    born: Instant,
    calls: u32,
    /// What it held after its first call.
    at_first: Option<Held>,
    /// When it was put aside for its next call.
    waits_since: Instant,
    room: Option<IdleRoom>,
}

/// What an instance holds from one call to the next.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory: usize,
    handles: usize,
}

/// The functions of a started component.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) transform: Option<Transform>,
    pub(crate) resolve: Option<Resolve>,
    pub(crate) classify: Option<classify::Guest>,
    pub(crate) sign: Option<sign::Guest>,
}

impl Instance {
    /// A store with its limits set, in which nothing has started yet.
    pub(crate) fn prepare(
        shared: &Shared,
        state: State,
        limits: &Limits,
        meter: Arc<Meter>,
    ) -> Self {
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| &mut state.budget);
        store.set_hostcall_fuel(limits.lifted_bytes);
        store.set_max_component_handles(limits.handles);
        store.epoch_deadline_callback(move |store| {
            meter.note_memory(store.data().budget.memory());
            if meter.is_over() || store.data().budget.exceeded().is_some() {
                return Ok(UpdateDeadline::Interrupt);
            }
            // A guest that spins would keep the thread otherwise.
            Ok(UpdateDeadline::YieldCustom(LOOK_EVERY, meter.rest()))
        });
        Self {
            store,
            guest: None,
            born: Instant::now(),
            calls: 0,
            at_first: None,
            waits_since: Instant::now(),
            room: None,
        }
    }

    /// Make ready for a call.
    pub(crate) fn begin_call(&mut self, limits: &Limits) {
        self.calls = self.calls.saturating_add(1);
        self.store.set_epoch_deadline(LOOK_EVERY);
        let state = self.store.data_mut();
        state.begin_call(limits);
    }

    /// The functions of the component, which is started if it has not been.
    pub(crate) async fn guest(&mut self, linked: &Linked) -> wasmtime::Result<Guest> {
        if let Some(guest) = &self.guest {
            return Ok(guest.clone());
        }
        let instance = linked.pre.instantiate_async(&mut self.store).await?;
        let store = &mut self.store;
        macro_rules! load {
            ($export:ident, $name:ident) => {
                match &linked.$export {
                    Some(indices) => Some(
                        indices
                            .load(&mut *store, &instance)
                            .map_err(|error| error.context(WrongSignature($name)))?,
                    ),
                    None => None,
                }
            };
        }
        let guest = Guest {
            transform: load!(transform, TRANSFORM),
            resolve: load!(resolve, RESOLVE),
            classify: load!(classify, CLASSIFY),
            sign: load!(sign, SIGN),
        };
        self.guest = Some(guest.clone());
        Ok(guest)
    }

    /// Whether it has used up half of what it had left after its first call: the guest leaks, and would
    /// fail a call for what earlier ones left behind.
    fn is_worn(&mut self, limits: &Limits) -> bool {
        let state = self.store.data_mut();
        let held = Held {
            memory: state.budget.memory(),
            handles: state.handles(),
        };
        let first = *self.at_first.get_or_insert(held);
        let has_half = |held: usize, first: usize, limit: usize| {
            held.saturating_sub(first) > limit.saturating_sub(first) / 2
        };
        has_half(held.memory, first.memory, limits.memory_bytes)
            || has_half(held.handles, first.handles, limits.handles)
    }

    fn is_spent(&self, reuse: Reuse) -> bool {
        match reuse {
            Reuse::Fresh => true,
            Reuse::UpTo { calls, seconds } => {
                self.calls >= calls || self.born.elapsed() >= Duration::from_secs(seconds.into())
            }
        }
    }
}

/// An instance with the meter that its store reports to.
pub(crate) struct Metered {
    pub(crate) instance: Instance,
    pub(crate) meter: Arc<Meter>,
}

/// The instances of one version of one plugin that wait for their next call.
///
/// Taking one moves it out, and only a call that ended cleanly puts it back: an instance whose call
/// trapped, was stopped or was dropped half-way is gone with its owner.
#[derive(Default)]
pub(crate) struct Idle(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// The one used last at the end.
    instances: Vec<Metered>,
    /// Whether this is in the list of those that keep instances.
    is_listed: bool,
}

impl Idle {
    /// The one used last, which is the warmest.
    pub(crate) fn take(&self, reuse: Reuse) -> Option<Metered> {
        let mut waiting = self.waiting();
        while let Some(kept) = waiting.instances.pop() {
            if !kept.instance.is_spent(reuse) {
                return Some(kept);
            }
        }
        None
    }

    /// Keep an instance, if it may serve again and there is room: free, or, for one that served a call,
    /// that of an instance of any plugin which has waited for long.
    pub(crate) fn put(
        self: &Arc<Self>,
        mut kept: Metered,
        shared: &Shared,
        limits: &Limits,
        reuse: Reuse,
        served: bool,
    ) {
        let instance = &mut kept.instance;
        if instance.is_spent(reuse) || instance.is_worn(limits) {
            return;
        }
        let memory = instance.store.data().budget.memory();
        if instance
            .room
            .as_ref()
            .is_none_or(|room| (room.pages as usize) < memory.div_ceil(PAGE))
        {
            instance.room = None;
            instance.room = shared.idle_room(memory).or_else(|| {
                drop(served.then(|| shared.keepers.give_up_one())??);
                shared.idle_room(memory)
            });
        }
        if instance.room.is_none() {
            return;
        }
        instance.waits_since = Instant::now();
        let was_listed = {
            let mut waiting = self.waiting();
            waiting.instances.push(kept);
            std::mem::replace(&mut waiting.is_listed, true)
        };
        if !was_listed {
            shared.keepers.add(self);
        }
    }

    /// Since when the one waits that has waited longest. With none, this leaves the list of those that
    /// keep instances.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        let mut waiting = self.waiting();
        let first = waiting.instances.first();
        let since = first.map(|kept| kept.instance.waits_since);
        waiting.is_listed = since.is_some();
        since
    }

    /// Give up the one that has waited longest.
    pub(crate) fn take_oldest(&self) -> Option<Metered> {
        let mut waiting = self.waiting();
        (!waiting.instances.is_empty()).then(|| waiting.instances.remove(0))
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().instances.is_empty()
    }

    /// End the ones that are too old.
    pub(crate) fn sweep(&self, reuse: Reuse) {
        let spent: Vec<Metered> = {
            let mut waiting = self.waiting();
            let is_spent = |kept: &mut Metered| kept.instance.is_spent(reuse);
            waiting.instances.extract_if(.., is_spent).collect()
        };
        drop(spent);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
